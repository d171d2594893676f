// fake-gcs-server with the part of the XML dialect that it lacks, in the words of its own JSON dialect: a PUT of an object with
// x-goog-if-generation-match, which it refuses, as an upload with ifGenerationMatch, and a list in pages, which it gives whole, by
// maxResults and startOffset. It alone decides which condition is met, under one lock. All else reaches it as it came.
package main

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"io"
	"mime/multipart"
	"net"
	"net/http"
	"net/http/httptest"
	"net/textproto"
	"net/url"
	"os"
	"strconv"
	"strings"

	"github.com/fsouza/fake-gcs-server/fakestorage"
)

type object struct {
	Name       string `json:"name" xml:"Key"`
	Generation string `json:"generation" xml:"Generation"`
	Etag       string `json:"etag" xml:"ETag"`
	Size       string `json:"size" xml:"Size"`
	Updated    string `json:"updated" xml:"LastModified"`
}

type page struct {
	XMLName               xml.Name `xml:"ListBucketResult"`
	Contents              []object
	IsTruncated           bool
	NextContinuationToken string `xml:",omitempty"`
}

// Asks the server in its JSON dialect; passes on a refusal, and says whether there was none.
func ask(server http.Handler, w http.ResponseWriter, request *http.Request, into any) bool {
	answer := httptest.NewRecorder()
	server.ServeHTTP(answer, request)
	if answer.Code >= 300 {
		w.WriteHeader(answer.Code)
		_, _ = w.Write(answer.Body.Bytes())
		return false
	}
	if err := json.Unmarshal(answer.Body.Bytes(), into); err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return false
	}
	return true
}

func put(server http.Handler, w http.ResponseWriter, r *http.Request, bucket, name string) {
	content, err := io.ReadAll(r.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	query := url.Values{"uploadType": {"multipart"}, "name": {name}}
	if generation := r.Header.Get("x-goog-if-generation-match"); generation != "" {
		query.Set("ifGenerationMatch", generation)
	}
	var body bytes.Buffer
	parts := multipart.NewWriter(&body)
	for _, part := range []struct {
		kind    string
		content []byte
	}{{"application/json", []byte("{}")}, {"application/octet-stream", content}} {
		into, _ := parts.CreatePart(textproto.MIMEHeader{"Content-Type": {part.kind}})
		_, _ = into.Write(part.content)
	}
	_ = parts.Close()
	target := "http://" + r.Host + "/upload/storage/v1/b/" + url.PathEscape(bucket) + "/o?" + query.Encode()
	request := httptest.NewRequest(http.MethodPost, target, &body)
	request.Header.Set("Content-Type", "multipart/related; boundary="+parts.Boundary())
	var done object
	if ask(server, w, request, &done) {
		w.Header().Set("ETag", strconv.Quote(done.Etag))
		w.Header().Set("x-goog-generation", done.Generation)
	}
}

func list(server http.Handler, w http.ResponseWriter, r *http.Request, bucket string) {
	limit, err := strconv.Atoi(r.URL.Query().Get("max-keys"))
	if err != nil || limit < 1 || limit > 1000 {
		limit = 1000
	}
	query := url.Values{
		"prefix":      {r.URL.Query().Get("prefix")},
		"startOffset": {r.URL.Query().Get("continuation-token")},
		"maxResults":  {strconv.Itoa(limit + 1)},
	}
	target := "http://" + r.Host + "/storage/v1/b/" + url.PathEscape(bucket) + "/o?" + query.Encode()
	var found struct{ Items []object }
	if !ask(server, w, httptest.NewRequest(http.MethodGet, target, nil), &found) {
		return
	}
	answer := page{Contents: found.Items}
	if len(found.Items) > limit {
		answer.IsTruncated, answer.Contents = true, found.Items[:limit]
		answer.NextContinuationToken = found.Items[limit].Name
	}
	w.Header().Set("Content-Type", "application/xml")
	_ = xml.NewEncoder(w).Encode(answer)
}

func main() {
	listener, err := net.Listen("tcp", "127.0.0.1:"+os.Args[1])
	if err == nil {
		err = serve(listener)
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

func serve(listener net.Listener) error {
	host := listener.Addr().String()
	fake, err := fakestorage.NewServerWithOptions(fakestorage.Options{NoListener: true, Scheme: "http", PublicHost: host})
	if err != nil {
		return err
	}
	server := fake.HTTPHandler()
	return http.Serve(listener, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		bucket, name, isObject := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
		switch isXML := bucket != "storage" && bucket != "upload" && bucket != "_internal"; {
		case isXML && isObject && r.Method == http.MethodPut:
			put(server, w, r, bucket, name)
		case isXML && !isObject && r.Method == http.MethodGet:
			list(server, w, r, bucket)
		default:
			server.ServeHTTP(w, r)
		}
	}))
}
