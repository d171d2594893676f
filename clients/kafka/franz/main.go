// franz-go: see ../README.md.
package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

var (
	bootstrap  = flag.String("bootstrap", "", "where the broker is")
	topic      = flag.String("topic", "", "the topic to create")
	partitions = flag.Int("partitions", 8, "its partitions")
	records    = flag.Int("records", 1000, "how many records")
	protocol   = flag.String("protocol", "classic", "the protocol of the group: classic, or consumer (KIP-848)")
)

func need(holds bool, format string, arguments ...any) {
	if !holds {
		fmt.Printf("FAILED "+format+"\n", arguments...)
		os.Exit(1)
	}
}

func key(i int) []byte { return []byte("key-" + strconv.Itoa(i)) }

func value(i int) []byte {
	bytes := make([]byte, 50+i%200)
	for j := range bytes {
		bytes[j] = byte(31*i + 7*j)
	}
	return bytes
}

func length(partition int) int64 {
	return int64((*records - partition + *partitions - 1) / *partitions)
}

// book holds what came back, and on which occasions the broker was killed.
type book struct {
	sync.Mutex
	delivered map[int]bool
	again     int
	killed    map[string]bool
}

// killOnce asks the driver, once for each occasion, to kill the broker.
func (b *book) killOnce(when string) {
	b.Lock()
	defer b.Unlock()
	if !b.killed[when] {
		fmt.Println("kill")
	}
	b.killed[when] = true
}

// waits says that half has come back and the kill that belongs there has not been asked for.
func (b *book) waits() bool {
	b.Lock()
	defer b.Unlock()
	return len(b.delivered)*2 >= *records && !b.killed["read"]
}

func (b *book) size() int {
	b.Lock()
	defer b.Unlock()
	return len(b.delivered)
}

func (b *book) deliver(r *kgo.Record) {
	i := int(r.Offset)*(*partitions) + int(r.Partition)
	need(i >= 0 && i < *records, "partition %d offset %d was never written", r.Partition, r.Offset)
	need(bytes.Equal(r.Key, key(i)), "record %d: key %q", i, r.Key)
	need(bytes.Equal(r.Value, value(i)), "record %d: value of %d bytes differs", i, len(r.Value))
	need(len(r.Headers) == 1 && r.Headers[0].Key == "n" && string(r.Headers[0].Value) == strconv.Itoa(i), "record %d: headers %v", i, r.Headers)
	b.Lock()
	defer b.Unlock()
	if b.delivered[i] {
		b.again++
	}
	b.delivered[i] = true
}

func client(options ...kgo.Opt) *kgo.Client {
	options = append(options, kgo.SeedBrokers(*bootstrap), kgo.MetadataMinAge(100*time.Millisecond), kgo.RetryTimeout(time.Minute))
	made, err := kgo.NewClient(options...)
	need(err == nil, "client: %v", err)
	return made
}

func create(ctx context.Context) {
	c := client()
	defer c.Close()
	request := kmsg.NewPtrCreateTopicsRequest()
	wanted := kmsg.NewCreateTopicsRequestTopic()
	wanted.Topic, wanted.NumPartitions, wanted.ReplicationFactor = *topic, int32(*partitions), 1
	request.Topics, request.TimeoutMillis = append(request.Topics, wanted), 30000
	response, err := request.RequestWith(ctx, c)
	need(err == nil, "create topic: %v", err)
	need(kerr.ErrorForCode(response.Topics[0].ErrorCode) == nil, "create topic: %v", kerr.ErrorForCode(response.Topics[0].ErrorCode))
}

func write(ctx context.Context, b *book) {
	// Idempotence and acks from all are this library's defaults.
	c := client(kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerBatchCompression(kgo.SnappyCompression()),
		kgo.ProducerLinger(5*time.Millisecond), kgo.MaxBufferedRecords(2000), kgo.RecordDeliveryTimeout(2*time.Minute))
	defer c.Close()
	done := 0
	var mutex sync.Mutex
	for i := 0; i < *records; i++ {
		r := &kgo.Record{Topic: *topic, Partition: int32(i % *partitions), Key: key(i), Value: value(i),
			Headers: []kgo.RecordHeader{{Key: "n", Value: []byte(strconv.Itoa(i))}}}
		c.Produce(ctx, r, func(r *kgo.Record, err error) {
			need(err == nil, "record %d: %v", i, err)
			need(r.Offset == int64(i / *partitions), "record %d was acknowledged at offset %d", i, r.Offset)
			mutex.Lock()
			done++
			half := done*2 >= *records
			mutex.Unlock()
			if half {
				b.killOnce("written")
			}
		})
		if i%500 == 499 {
			need(c.Flush(ctx) == nil, "flush")
		}
	}
	need(c.Flush(ctx) == nil, "flush")
	need(done == *records, "%d of %d acknowledged", done, *records)
}

// join adds a member to the group until leave is called.
func join(ctx context.Context, group string, byPattern bool, b *book) (leave func()) {
	options := []kgo.Opt{kgo.ConsumerGroup(group), kgo.DisableAutoCommit(), kgo.BlockRebalanceOnPoll(),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.SessionTimeout(10 * time.Second), kgo.HeartbeatInterval(time.Second),
		kgo.FetchMaxPartitionBytes(16384), kgo.Balancers(kgo.RangeBalancer())}
	wanted := *topic
	if *protocol == "consumer" {
		// This library's own way to ask for it until it is its default.
		options = append(options, kgo.WithContext(context.WithValue(ctx, "opt_in_kafka_next_gen_balancer_beta", true)))
		if byPattern {
			wanted = "^" + regexp.QuoteMeta(*topic) + "$"
			options = append(options, kgo.ConsumeRegex())
		}
	}
	c := client(append(options, kgo.ConsumeTopics(wanted))...)
	ctx, stop := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for ctx.Err() == nil {
			if b.waits() {
				time.Sleep(5 * time.Millisecond)
				continue
			}
			fetches := c.PollRecords(ctx, 300)
			fetches.EachRecord(b.deliver)
			// What cannot be committed now is delivered again.
			_ = c.CommitUncommittedOffsets(ctx)
			c.AllowRebalance()
		}
		c.CloseAllowingRebalance()
	}()
	return func() {
		stop()
		<-ended
	}
}

func read(ctx context.Context, group string, b *book) (members []func(), count int) {
	members, count = []func(){join(ctx, group, false, b), join(ctx, group, false, b)}, 2
	deadline := time.Now().Add(5*time.Minute + time.Duration(*records)*10*time.Millisecond)
	for b.size() < *records {
		need(time.Now().Before(deadline), "only %d records came back", b.size())
		if count == 2 && b.size()*4 >= *records {
			members, count = append(members, join(ctx, group, true, b)), 3
		}
		if b.size()*2 >= *records {
			b.killOnce("read")
			if len(members) == 3 {
				members[0]()
				members = members[1:]
			}
		}
		time.Sleep(20 * time.Millisecond)
	}
	return members, count
}

func committed(ctx context.Context, c *kgo.Client, group string) bool {
	request := kmsg.NewPtrOffsetFetchRequest()
	request.Group = group
	asked := kmsg.NewOffsetFetchRequestGroup()
	asked.Group = group
	request.Groups = append(request.Groups, asked)
	wanted := kmsg.NewOffsetFetchRequestTopic()
	wanted.Topic = *topic
	for p := 0; p < *partitions; p++ {
		wanted.Partitions = append(wanted.Partitions, int32(p))
	}
	request.Topics = append(request.Topics, wanted)
	grouped := kmsg.NewOffsetFetchRequestGroupTopic()
	grouped.Topic, grouped.Partitions = *topic, wanted.Partitions
	request.Groups[0].Topics = append(request.Groups[0].Topics, grouped)
	response, err := request.RequestWith(ctx, c)
	if err != nil {
		// The broker may be away still: asked again until its time is over.
		return false
	}
	found := map[int]int64{}
	for _, t := range response.Topics {
		for _, p := range t.Partitions {
			found[int(p.Partition)] = p.Offset
		}
	}
	for _, g := range response.Groups {
		for _, t := range g.Topics {
			for _, p := range t.Partitions {
				found[int(p.Partition)] = p.Offset
			}
		}
	}
	for p := 0; p < *partitions; p++ {
		if found[p] != length(p) {
			return false
		}
	}
	return true
}

func checkEnds(ctx context.Context, c *kgo.Client) {
	request := kmsg.NewPtrListOffsetsRequest()
	request.ReplicaID = -1
	asked := kmsg.NewListOffsetsRequestTopic()
	asked.Topic = *topic
	for p := 0; p < *partitions; p++ {
		part := kmsg.NewListOffsetsRequestTopicPartition()
		part.Partition, part.Timestamp = int32(p), -1
		asked.Partitions = append(asked.Partitions, part)
	}
	request.Topics = append(request.Topics, asked)
	response, err := request.RequestWith(ctx, c)
	need(err == nil, "list offsets: %v", err)
	for _, p := range response.Topics[0].Partitions {
		need(p.Offset == length(int(p.Partition)), "partition %d ends at %d", p.Partition, p.Offset)
	}
}

// transact carries records through transactions: see ../README.md.
func transact(ctx context.Context, c *kgo.Client) {
	source, sink := *topic+".in", *topic+".out"
	request := kmsg.NewPtrCreateTopicsRequest()
	request.TimeoutMillis = 30000
	for name, count := range map[string]int32{source: 1, sink: 2} {
		wanted := kmsg.NewCreateTopicsRequestTopic()
		wanted.Topic, wanted.NumPartitions, wanted.ReplicationFactor = name, count, 1
		request.Topics = append(request.Topics, wanted)
	}
	made, err := request.RequestWith(ctx, c)
	need(err == nil, "create topics: %v", err)
	for _, t := range made.Topics {
		need(kerr.ErrorForCode(t.ErrorCode) == nil, "create topic %s: %v", t.Topic, kerr.ErrorForCode(t.ErrorCode))
	}
	plain := client(kgo.RecordPartitioner(kgo.ManualPartitioner()))
	for i := 0; i < 30; i++ {
		written := plain.ProduceSync(ctx, &kgo.Record{Topic: source, Key: key(i), Value: value(i)})
		need(written.FirstErr() == nil, "record %d: %v", i, written.FirstErr())
	}
	plain.Close()
	session := func() *kgo.GroupTransactSession {
		s, err := kgo.NewGroupTransactSession(kgo.SeedBrokers(*bootstrap), kgo.MetadataMinAge(100*time.Millisecond),
			kgo.TransactionalID(*topic+".tx"), kgo.ConsumerGroup(source+".transform"), kgo.ConsumeTopics(source),
			kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
			kgo.RequireStableFetchOffsets(), kgo.RecordPartitioner(kgo.ManualPartitioner()))
		need(err == nil, "transactional client: %v", err)
		return s
	}
	carrier, carried, aborted := session(), 0, 0
	for turn := 0; carried < 30; turn++ {
		need(carrier.Begin() == nil, "begin")
		fetches := carrier.PollRecords(ctx, 5)
		count := 0
		fetches.EachRecord(func(r *kgo.Record) {
			carrier.Produce(ctx, &kgo.Record{Topic: sink, Partition: int32(r.Offset % 2), Key: r.Key, Value: r.Value}, nil)
			count++
		})
		end := kgo.TryCommit
		if turn%3 == 1 {
			// What was not sent yet would not be sent any more.
			need(carrier.Client().Flush(ctx) == nil, "flush")
			end, aborted = kgo.TryAbort, aborted+count
		}
		committed, err := carrier.End(ctx, end)
		need(err == nil && committed == bool(end), "end: %v %v", committed, err)
		if committed {
			carried += count
		}
	}
	carrier.Close()
	need(aborted > 0, "nothing was aborted")
	// Who comes later with the same id shuts out who was before.
	producer := func() *kgo.Client {
		return client(kgo.TransactionalID(*topic+".tx"), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	}
	old, late := producer(), producer()
	need(old.BeginTransaction() == nil, "begin")
	need(old.ProduceSync(ctx, &kgo.Record{Topic: sink, Value: []byte("zombie")}).FirstErr() == nil, "write")
	need(late.BeginTransaction() == nil, "begin")
	need(late.ProduceSync(ctx, &kgo.Record{Topic: sink, Key: []byte("late")}).FirstErr() == nil, "write")
	need(old.EndTransaction(ctx, kgo.TryCommit) != nil, "a producer whose id was taken committed")
	need(late.EndTransaction(ctx, kgo.TryCommit) == nil, "the producer that came later cannot commit")
	old.Close()
	late.Close()
	count := func(level kgo.IsolationLevel, least int) map[string]int {
		reader := client(kgo.ConsumeTopics(sink), kgo.FetchIsolationLevel(level), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
		defer reader.Close()
		found, all := map[string]int{}, 0
		for all < least {
			limited, stop := context.WithTimeout(ctx, 30*time.Second)
			fetches := reader.PollFetches(limited)
			stop()
			need(fetches.Err() == nil, "%d of %d records: %v", all, least, fetches.Err())
			fetches.EachRecord(func(r *kgo.Record) {
				found[string(r.Key)]++
				all++
			})
		}
		return found
	}
	found := count(kgo.ReadCommitted(), 31)
	for i := 0; i < 30; i++ {
		need(found[string(key(i))] == 1, "record %d was carried on %d times", i, found[string(key(i))])
	}
	need(found["late"] == 1 && len(found) == 31, "%d keys were carried on", len(found))
	count(kgo.ReadUncommitted(), 32+aborted)
	deletion := kmsg.NewPtrDeleteTopicsRequest()
	deletion.TimeoutMillis, deletion.TopicNames = 30000, []string{source, sink}
	for _, name := range deletion.TopicNames {
		wanted := kmsg.NewDeleteTopicsRequestTopic()
		wanted.Topic = kmsg.StringPtr(name)
		deletion.Topics = append(deletion.Topics, wanted)
	}
	_, err = deletion.RequestWith(ctx, c)
	need(err == nil, "delete topics: %v", err)
}

func main() {
	flag.Parse()
	ctx := context.Background()
	b := &book{delivered: map[int]bool{}, killed: map[string]bool{}}
	create(ctx)
	write(ctx, b)
	group := *topic + ".group"
	members, count := read(ctx, group, b)
	c := client()
	defer c.Close()
	deadline := time.Now().Add(time.Minute)
	for !committed(ctx, c, group) {
		need(time.Now().Before(deadline), "not everything is committed")
		time.Sleep(200 * time.Millisecond)
	}
	checkEnds(ctx, c)
	for _, leave := range members {
		leave()
	}
	transact(ctx, c)
	if *protocol == "consumer" {
		share(ctx, c)
	}
	fmt.Printf("ok %d records, %d partitions, %d members, %d delivered again\n", *records, *partitions, count, b.again)
}
