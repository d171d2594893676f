//! What Confluent's registry answers where one could think otherwise: statuses, codes, words and shapes that its own suite and
//! those of other registries look at.

use axum::{body::Body, http::Request};
use serde_json::{Value, json};

use crate::running::{A, Api, B, C, Running, avro, record};

/// An API over a registry of its own; the log lives as long as what is given beside it.
async fn fresh() -> (Api, Running, tempfile::TempDir) {
    let folder = tempfile::tempdir().expect("a folder");
    let running = Running::start(folder.path()).await;
    let api = Api::of(&running.registry().await);
    (api, running, folder)
}

async fn put(api: &Api, subject: &str, schema: Value) -> Value {
    api.done("POST", &format!("/subjects/{subject}/versions"), Some(schema)).await
}

fn with(mut schema: Value, more: &Value) -> Value {
    let members = more.as_object().expect("members").clone();
    schema.as_object_mut().expect("an object").extend(members);
    schema
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_compared_with_nothing_fits_and_a_version_that_is_not_there_is_404() {
    let (api, running, _folder) = fresh().await;
    let path = |version: &str| format!("/compatibility/subjects/none/versions{version}");
    for version in ["/latest", ""] {
        let verdict = api.done("POST", &path(version), Some(record(A))).await;
        assert_eq!(verdict, json!({"is_compatible": true}), "{version}");
    }
    let verbose = api.done("POST", &path("/latest?verbose=true"), Some(record(A))).await;
    assert_eq!(verbose, json!({"is_compatible": true, "messages": []}));
    assert_eq!(api.refused("POST", &path("/1"), Some(record(A))).await, (404, 40402));
    put(&api, "s", record(A)).await;
    api.done("DELETE", "/subjects/s/versions/1", None).await;
    assert_eq!(
        api.refused("POST", "/compatibility/subjects/s/versions/1", Some(record(A))).await,
        (404, 40402),
        "what is deleted is not compared with"
    );
    // What is no schema is refused, or does not fit where words are wanted.
    assert_eq!(api.refused("POST", &path(""), Some(avro("\"strin\""))).await, (422, 42201));
    let verdict = api.done("POST", &path("?verbose=true"), Some(avro("\"strin\""))).await;
    assert_eq!(verdict["is_compatible"], false);
    assert!(verdict["messages"][0].as_str().is_some_and(|words| words.contains("Invalid schema")), "{verdict}");
    running.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_say_when_they_were_written_and_whether_they_are_deleted() {
    let (api, running, _folder) = fresh().await;
    put(&api, "s", record(A)).await;
    let version = api.get("/subjects/s/versions/1").await;
    assert!(version["ts"].as_i64().is_some_and(|written| written > 1_600_000_000_000), "{version}");
    assert_eq!(version["deleted"], false);
    let schema = api.get("/schemas/ids/1").await;
    assert_eq!((&schema["ts"], &schema["deleted"]), (&version["ts"], &json!(false)));
    assert!(schema["subject"].is_null() && schema["version"].is_null() && schema["subjects"].is_null(), "{schema}");
    let asked = api.get("/schemas/ids/1?subject=s").await;
    assert_eq!((&asked["subject"], &asked["version"]), (&json!("s"), &json!(1)));
    put(&api, "t", record(A)).await;
    assert_eq!(api.get("/schemas/ids/1?includeSubjects=True").await["subjects"], json!(["s", "t"]));
    assert_eq!(api.get("/schemas/ids/1/subjects?subject=t").await, json!(["t"]));
    let (status, said) = api.ask("GET", "/schemas/ids/9/versions", None).await;
    assert_eq!((status, &said["error_code"], &said["message"]), (404, &json!(40403), &json!("Schema not found")));
    assert_eq!(api.get("/master_available").await, json!({"master_available": true}));
    running.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn versions_are_listed_as_they_are_asked_for() {
    let (api, running, _folder) = fresh().await;
    put(&api, "s", record(A)).await;
    put(&api, "s", record(&format!("{A}, {B}"))).await;
    assert_eq!(api.get("/subjects/s/versions?deletedOnly=true").await, json!([]), "the subject is there");
    api.done("DELETE", "/subjects/s/versions/1", None).await;
    for (asked, listed) in [
        ("", json!([2])),
        ("?deleted=true", json!([1, 2])),
        ("?deletedOnly=true", json!([1])),
        ("?deleted=true&deletedOnly=true", json!([1])),
        ("?deletedAsNegative=true", json!([-1, 2])),
    ] {
        assert_eq!(api.get(&format!("/subjects/s/versions{asked}")).await, listed, "{asked}");
    }
    assert_eq!(api.get("/subjects/s/versions/latest?deleted=true").await["version"], 2);
    assert_eq!(api.get("/subjects/s/versions/1/referencedby").await, json!([]), "of a deleted one too");
    api.done("DELETE", "/subjects/s/versions/latest", None).await;
    assert_eq!(api.refused("GET", "/subjects/s/versions", None).await, (404, 40401));
    assert_eq!(api.refused("GET", "/subjects/s/metadata?key=a&value=b", None).await, (404, 40401));
    assert_eq!(api.refused("GET", "/subjects/s/versions/latest?deleted=true", None).await, (404, 40402));
    assert_eq!(api.refused("DELETE", "/subjects/s/versions/latest?permanent=true", None).await, (404, 40402));
    running.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_back_after_deletion_has_its_id_and_stands_for_what_was_deleted() {
    let (api, running, _folder) = fresh().await;
    put(&api, "s", record(A)).await;
    put(&api, "s", record(&format!("{A}, {B}"))).await;
    api.done("DELETE", "/subjects/s", None).await;
    let back = put(&api, "s", record(&format!("{A}, {B}"))).await;
    assert_eq!((&back["id"], &back["version"]), (&json!(2), &json!(3)));
    assert_eq!(api.get("/subjects/s/versions?deleted=true").await, json!([1, 3]), "the third stands for the second");
    // Somebody who was soft-deleted still refers to a version: it stays.
    put(&api, "inner", record(A)).await;
    let outer = json!({"schema": r#"{"type": "record", "name": "O", "fields": [{"name": "r", "type": "R"}]}"#,
                       "references": [{"name": "R", "subject": "inner", "version": 1}]});
    put(&api, "outer", outer.clone()).await;
    api.done("DELETE", "/subjects/outer", None).await;
    api.done("DELETE", "/subjects/inner", None).await;
    assert_eq!(api.refused("POST", "/subjects/new/versions", Some(outer)).await, (422, 42201), "what it needs is gone");
    put(&api, "inner", record(A)).await;
    assert_eq!(api.get("/subjects/inner/versions?deleted=true").await, json!([1, 2]));
    // Gone for good, with what was set for it; the same schema has its id again.
    api.done("PUT", "/config/last", Some(json!({"compatibility": "FULL"}))).await;
    let id = put(&api, "last", avro("\"double\"")).await["id"].clone();
    api.done("DELETE", "/subjects/last/versions/1", None).await;
    api.done("DELETE", "/subjects/last/versions/1?permanent=true", None).await;
    assert_eq!(api.refused("GET", "/config/last", None).await, (404, 40408));
    assert_eq!(put(&api, "other", avro("\"double\"")).await["id"], id);
    running.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schema_is_found_by_all_that_it_holds_and_changed_in_what_is_said_about_it() {
    let (api, running, _folder) = fresh().await;
    put(&api, "inner", record(A)).await;
    let text = r#"{"type": "record", "name": "O", "fields": [{"name": "r", "type": "R"}]}"#;
    let outer = json!({"schema": text, "references": [{"name": "R", "subject": "inner", "version": 1}]});
    let id = put(&api, "outer", outer).await["id"].clone();
    let whole = api.get("/subjects/outer/versions/1?format=resolved").await["schema"].clone();
    let found = api.done("POST", "/subjects/outer", Some(json!({"schema": whole}))).await;
    assert_eq!((&found["id"], found["references"].is_array()), (&id, true), "without its references too");
    // Without a text it is the latest with other words about it.
    let said = json!({"metadata": {"properties": {"owner": "team"}}});
    let second = put(&api, "inner", said.clone()).await;
    assert_eq!((&second["version"], &second["metadata"]), (&json!(2), &said["metadata"]));
    assert!(second["schema"].as_str().is_some_and(|text| text.contains("\"a\"")), "{second}");
    assert_eq!(api.refused("POST", "/subjects/inner", Some(json!({}))).await, (404, 40403));
    assert_eq!(api.refused("POST", "/subjects/none", Some(json!({}))).await, (404, 40401));
    // The next version may be named, and force registers what does not fit.
    let third = with(record(&format!("{A}, {B}")), &json!({"version": 3}));
    assert_eq!(put(&api, "inner", third).await["version"], 3);
    let path = "/subjects/inner/versions";
    assert_eq!(api.refused("POST", path, Some(record(C))).await, (409, 409));
    assert_eq!(api.done("POST", &format!("{path}?force=true"), Some(record(C))).await["version"], 4);
    running.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_imported_stays_as_it_was_and_begins_without_what_was_deleted() {
    let (api, running, _folder) = fresh().await;
    put(&api, "s", record(A)).await;
    api.done("DELETE", "/subjects/s", None).await;
    api.done("PUT", "/config/s", Some(json!({"normalize": true, "compatibility": "BACKWARD"}))).await;
    assert_eq!(api.done("PUT", "/mode/s", Some(json!({"mode": "IMPORT"}))).await, json!({"mode": "IMPORT"}));
    assert_eq!(api.refused("GET", "/subjects/s/versions?deleted=true", None).await, (404, 40401));
    let (status, said) = api.ask("POST", "/subjects/s/versions", Some(record(A))).await;
    let words = said["message"].as_str().unwrap_or_default();
    assert!(status == 422 && said["error_code"] == 42205 && words.contains("not in read-write mode"), "{said}");
    let text = r#"{"type":"record","name":"R","fields":[{"name":"a","type":"int","z":"1","b":"2"}]}"#;
    let brought = json!({"schema": text, "id": 9, "version": 4});
    api.done("POST", "/subjects/s/versions?normalize=true", Some(brought.clone())).await;
    assert_eq!(api.get("/subjects/s/versions/4").await["schema"], text);
    api.done("POST", "/subjects/s/versions", Some(with(record(C), &json!({"id": 10, "version": 2})))).await;
    assert_eq!(api.get("/subjects/s/versions").await, json!([2, 4]), "in any order, whether it fits or not");
    let other = with(record(B), &json!({"id": 9, "version": 5}));
    assert_eq!(api.refused("POST", "/subjects/s/versions", Some(other)).await, (422, 42205));
    assert_eq!(api.done("PUT", "/mode/s", Some(json!({"mode": null}))).await, json!({"mode": null}));
    assert_eq!(api.refused("POST", "/subjects/s/versions", Some(brought)).await, (422, 42205));
    running.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_is_answered_whole_and_modes_go_with_their_context() {
    let (api, running, _folder) = fresh().await;
    api.done("PUT", "/config/s", Some(json!({"compatibility": "full"}))).await;
    let more = api.done("PUT", "/config/s", Some(json!({"normalize": true}))).await;
    assert_eq!(more, json!({"normalize": true, "compatibility": "FULL"}));
    assert_eq!(api.done("DELETE", "/config/s", None).await, json!({"normalize": true, "compatibilityLevel": "FULL"}));
    api.done("PUT", "/config/t", Some(json!({"normalize": true}))).await;
    assert_eq!(api.get("/config/t").await["compatibilityLevel"], "BACKWARD");
    for scope in ["/mode/:.eu:a", "/mode/:.eu:b", "/mode/:.us:a", "/mode/c"] {
        api.done("PUT", scope, Some(json!({"mode": "READONLY"}))).await;
    }
    assert_eq!(api.refused("DELETE", "/mode/:.eu:", None).await, (404, 40401));
    assert_eq!(api.done("DELETE", "/mode/:.eu:?recursive=true", None).await, json!({"mode": null}));
    assert_eq!(api.refused("GET", "/mode/:.eu:b", None).await, (404, 40409));
    assert_eq!(api.get("/mode/:.us:a").await["mode"], "READONLY", "of that context only");
    api.done("DELETE", "/mode?recursive=true", None).await;
    assert_eq!(api.refused("GET", "/mode/c", None).await, (404, 40409));
    running.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_context_may_stand_in_the_path_and_is_found_without_being_named() {
    let (api, running, _folder) = fresh().await;
    let made = api.done("POST", "/contexts/.eu/subjects/s/versions", Some(avro("\"int\""))).await;
    assert_eq!((&made["id"], &made["version"]), (&json!(1), &json!(1)));
    put(&api, "other", avro("\"string\"")).await;
    assert_eq!(api.get("/contexts/.eu/subjects").await, json!([":.eu:s"]));
    assert_eq!(api.get("/contexts/:.:/subjects").await, json!(["other"]));
    assert_eq!(api.get("/contexts/.eu/schemas/ids/1").await["schema"], "\"int\"");
    api.done("PUT", "/contexts/.eu/config", Some(json!({"compatibility": "NONE"}))).await;
    assert_eq!(api.get("/config/:.eu:").await["compatibilityLevel"], "NONE");
    assert_eq!(api.get("/contexts/.eu/mode/s?defaultToGlobal=true").await["mode"], "READWRITE");
    assert_eq!(api.refused("GET", "/contexts/.eu/nowhere", None).await, (404, 404));
    // The subject alone, of a context that is not named.
    assert_eq!(api.get("/subjects/s/versions/1").await["subject"], ":.eu:s");
    assert_eq!(api.done("POST", "/subjects/s", Some(avro("\"int\""))).await["subject"], ":.eu:s");
    assert_eq!(api.get("/schemas/ids/1?subject=s").await["schema"], "\"int\"");
    assert_eq!(api.get("/schemas/ids/1?subject=other").await["schema"], "\"string\"");
    assert_eq!(api.refused("GET", "/subjects/s/versions", None).await, (404, 40401), "it is not listed so");
    assert_eq!(api.refused("DELETE", "/subjects/s/versions/1", None).await, (404, 40401), "nor deleted");
    // References within a context are named in full where that is asked for.
    let outer = json!({"schema": r#"["R", "null"]"#, "references": [{"name": "R", "subject": "r", "version": 1}]});
    put(&api, ":.eu:r", record(A)).await;
    put(&api, ":.eu:o", outer).await;
    let of = async |path: &str| api.get(path).await["references"][0]["subject"].clone();
    assert_eq!(of("/subjects/:.eu:o/versions/1").await, "r");
    assert_eq!(of("/subjects/:.eu:o/versions/1?referenceFormat=qualified").await, ":.eu:r");
    running.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn media_types_are_agreed_on() {
    let (api, running, _folder) = fresh().await;
    let asked = async |accept: &str, path: &str| {
        let request = Request::builder().uri(path).header("host", "localhost").header("accept", accept);
        api.send(request.body(Body::empty()).expect("a request")).await
    };
    let (status, said) = asked("application/vnd.schemaregistry.v2+json", "/subjects").await;
    assert_eq!((status, &said["error_code"], &said["message"]), (406, &json!(406), &json!("HTTP 406 Not Acceptable")));
    for (accept, path) in [
        ("text/plain", "/"),
        ("text/plain", "/master_available"),
        ("application/*", "/subjects"),
        ("*/*", "/subjects"),
        ("application/json", "/contexts/.eu/subjects"),
    ] {
        assert_eq!(asked(accept, path).await.0, 200, "{accept} {path}");
    }
    running.end().await;
}
