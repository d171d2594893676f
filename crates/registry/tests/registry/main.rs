//! The registry over the embedded log, asked by its API as clients ask: what it keeps, what it refuses, what a restart brings
//! back, and that two of them do not hand out one id twice. [`answers`] is what other registries' suites look at.

mod answers;
mod running;

use std::time::Duration;

use axum::{body::Body, http::Request};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use cairn_registry::{Bounds, Guard, Secret, publish_contracts, router};
use running::{A, Api, B, C, Running, avro, names, record};
use serde_json::{Value, json};

#[tokio::test(flavor = "multi_thread")]
async fn what_is_registered_is_found_by_every_way_and_again_after_a_restart() {
    let folder = tempfile::tempdir().expect("a folder");
    let running = Running::start(folder.path()).await;
    let registry = running.registry().await;
    let api = Api::of(&registry);
    assert_eq!(api.get("/subjects").await, json!([]));
    assert_eq!(api.get("/schemas/types").await, json!(["JSON", "PROTOBUF", "AVRO"]));
    let first = api.done("POST", "/subjects/s/versions", Some(record(A))).await;
    assert_eq!((&first["id"], &first["version"]), (&json!(1), &json!(1)));
    let again = api.done("POST", "/subjects/s/versions", Some(record(&A.replace(' ', "")))).await;
    assert_eq!(again["id"], 1, "layout makes no other schema");
    let second = api.done("POST", "/subjects/s/versions", Some(record(&format!("{A}, {B}")))).await;
    assert_eq!((&second["id"], &second["version"]), (&json!(2), &json!(2)));
    let elsewhere = api.done("POST", "/subjects/t%2Fx/versions", Some(record(A))).await;
    assert_eq!((&elsewhere["id"], &elsewhere["version"]), (&json!(1), &json!(1)), "one text, one id");
    let guid = first["guid"].as_str().expect("a GUID").to_owned();
    let check = async |api: &Api| {
        assert_eq!(api.get("/subjects").await, json!(["s", "t/x"]));
        assert_eq!(api.get("/subjects/s/versions").await, json!([1, 2]));
        assert_eq!(api.get("/subjects/s/versions/latest").await["id"], 2);
        assert_eq!(api.get("/subjects/s/versions/-1").await["version"], 2);
        let text = r#"{"type":"record","name":"R","fields":[{"name":"a","type":"int"}]}"#;
        assert_eq!(api.get("/schemas/ids/1").await["schema"], text);
        assert_eq!(api.get("/schemas/ids/1/schema").await["name"], "R");
        assert_eq!(api.get(&format!("/schemas/guids/{guid}")).await["schema"], text);
        assert_eq!(api.get(&format!("/schemas/guids/{guid}/ids")).await, json!([{"context": ".", "id": 1}]));
        assert_eq!(api.get("/schemas/ids/1/subjects").await, json!(["s", "t/x"]));
        let places = json!([{"subject": "s", "version": 1}, {"subject": "t/x", "version": 1}]);
        assert_eq!(api.get("/schemas/ids/1/versions").await, places);
        assert_eq!(api.get("/schemas?latestOnly=true").await.as_array().map(Vec::len), Some(2));
        assert_eq!(api.get("/subjects?offset=1&limit=1").await, json!(["t/x"]));
        let found = api.done("POST", "/subjects/s", Some(record(A))).await;
        assert_eq!((&found["version"], &found["id"], &found["subject"]), (&json!(1), &json!(1), &json!("s")));
    };
    check(&api).await;
    drop((api, registry));
    running.end().await;
    let running = Running::start(folder.path()).await;
    let registry = running.registry().await;
    let api = Api::of(&registry);
    check(&api).await;
    let third = api.done("POST", "/subjects/u/versions", Some(avro("\"string\""))).await;
    assert_eq!(third["id"], 3, "no id is handed out again");
    running.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_have_the_codes_that_clients_know() {
    let folder = tempfile::tempdir().expect("a folder");
    let running = Running::start(folder.path()).await;
    let registry = running.bounded(Bounds { schemas_max: 3, schema_bytes_max: 4_000, references_max: 10 }).await;
    let api = Api::of(&registry);
    api.done("POST", "/subjects/s/versions", Some(record(A))).await;
    let one = || Some(record(A));
    for (method, path, body, status, code) in [
        ("GET", "/subjects/none/versions", None, 404, 40401),
        ("POST", "/subjects/none", one(), 404, 40401),
        ("DELETE", "/subjects/none", None, 404, 40401),
        ("GET", "/subjects/s/versions/9", None, 404, 40402),
        ("GET", "/schemas/ids/99", None, 404, 40403),
        ("GET", "/schemas/guids/00000000-0000-0000-0000-000000000000", None, 404, 40403),
        ("POST", "/subjects/s", Some(avro("\"int\"")), 404, 40403),
        ("DELETE", "/subjects/s?permanent=true", None, 404, 40405),
        ("DELETE", "/subjects/s/versions/1?permanent=true", None, 404, 40407),
        ("GET", "/config/s", None, 404, 40408),
        ("GET", "/mode/s", None, 404, 40409),
        ("POST", "/subjects/s/versions", Some(record(C)), 409, 409),
        ("POST", "/subjects/s/versions", Some(avro("\"strin\"")), 422, 42201),
        ("POST", "/subjects/s/versions", Some(json!({"schema": "x", "schemaType": "XML"})), 422, 42201),
        ("GET", "/subjects/s/versions/0", None, 422, 42202),
        ("GET", "/subjects/s/versions/x", None, 422, 42202),
        ("PUT", "/config", Some(json!({"compatibility": "SIDEWAYS"})), 422, 42203),
        ("PUT", "/mode", Some(json!({"mode": "OPEN"})), 422, 42204),
        ("PUT", "/mode/s", Some(json!({"mode": "IMPORT"})), 422, 42205),
        ("POST", "/subjects/s/versions", Some(json!({"schema": "\"int\"", "id": 7})), 422, 42205),
        ("POST", "/subjects/none/versions", Some(json!({"schema": "\"int\"", "version": 7})), 422, 42201),
        ("POST", "/subjects/none/versions", Some(json!({})), 422, 42201),
        ("PUT", "/config/__EMPTY", Some(json!({"compatibility": "FULL"})), 422, 42208),
        ("POST", "/subjects/__GLOBAL/versions", one(), 422, 42208),
        ("POST", "/subjects/s/versions", Some(avro(&format!("\"{}\"", "x".repeat(5_000)))), 422, 42209),
        ("POST", "/subjects/s/versions", Some(json!({"schema": "\"int\"", "colour": 1})), 422, 422),
        ("GET", "/associations/subjects/s", None, 404, 404),
        ("PUT", "/subjects", None, 405, 405),
    ] {
        assert_eq!(api.refused(method, path, body).await, (status, code), "{method} {path}");
    }
    assert_eq!(api.ask("POST", "/subjects/s/versions", Some(avro(&"x".repeat(1_000_000)))).await.0, 413);
    let foreign =
        Request::builder().uri("/subjects").header("host", "evil.example").body(Body::empty()).expect("a request");
    assert_eq!(api.send(foreign).await.0, 403, "a page that rebinds a name is turned away");
    let form = Request::builder().method("POST").uri("/subjects/s/versions").header("host", "localhost");
    let form = form.header("content-type", "text/plain").body(Body::from("{}")).expect("a request");
    assert_eq!(api.send(form).await.0, 415);
    api.done("POST", "/subjects/s/versions", Some(record(&format!("{A}, {B}")))).await;
    api.done("POST", "/subjects/t/versions", one()).await;
    assert_eq!(api.refused("POST", "/subjects/t/versions", Some(record(B))).await, (503, 50001), "it is full");
    let known = Guard::new(names(), [("me".to_owned(), Secret::of("s3cret"))].into());
    let closed = Api(router(registry.clone(), known));
    assert_eq!(closed.ask("GET", "/subjects", None).await.0, 401);
    for (header, status) in [
        (format!("Basic {}", STANDARD.encode("me:s3cret")), 200),
        ("Bearer s3cret".to_owned(), 200),
        (format!("Basic {}", STANDARD.encode("me:other")), 401),
        (format!("Basic {}", STANDARD.encode("you:s3cret")), 401),
    ] {
        let request = Request::builder().uri("/subjects").header("host", "localhost").header("authorization", &header);
        assert_eq!(closed.send(request.body(Body::empty()).expect("a request")).await.0, status, "{header}");
    }
    running.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_level_compares_with_what_it_says() {
    let folder = tempfile::tempdir().expect("a folder");
    let running = Running::start(folder.path()).await;
    let registry = running.registry().await;
    let api = Api::of(&registry);
    // Each drops or adds a field: [a], [a, b with a default], then what is tried.
    let (one, two) = (record(A), record(&format!("{A}, {B}")));
    let (adds, drops) = (record(&format!("{A}, {B}, {C}")), record(B));
    for (level, adds_fits, drops_fits) in [
        ("NONE", true, true),
        ("BACKWARD", false, true),
        ("BACKWARD_TRANSITIVE", false, true),
        ("FORWARD", true, false),
        ("FORWARD_TRANSITIVE", true, false),
        ("FULL", false, false),
        ("FULL_TRANSITIVE", false, false),
    ] {
        let subject = level.to_lowercase();
        let echoed = api.done("PUT", &format!("/config/{subject}"), Some(json!({"compatibility": level}))).await;
        assert_eq!(echoed, json!({"compatibility": level}));
        for schema in [&one, &two] {
            api.done("POST", &format!("/subjects/{subject}/versions"), Some(schema.clone())).await;
        }
        for (schema, fits) in [(&adds, adds_fits), (&drops, drops_fits)] {
            let path = format!("/compatibility/subjects/{subject}/versions/latest?verbose=true");
            let verdict = api.done("POST", &path, Some(schema.clone())).await;
            assert_eq!(verdict["is_compatible"], fits, "{level}: {verdict}");
            assert_eq!(verdict["messages"].as_array().map(Vec::is_empty), Some(fits), "{level}: {verdict}");
            let all =
                api.done("POST", &format!("/compatibility/subjects/{subject}/versions"), Some(schema.clone())).await;
            assert_eq!(all["is_compatible"], fits, "{level}");
        }
    }
    // What the last version allows and an earlier one does not.
    let renamed = record(r#"{"name": "b", "type": "int"}"#);
    for (level, fits) in [("BACKWARD", true), ("BACKWARD_TRANSITIVE", false)] {
        let path = format!("/compatibility/subjects/{}/versions", level.to_lowercase());
        assert_eq!(api.done("POST", &path, Some(renamed.clone())).await["is_compatible"], fits, "{level}");
    }
    running.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn metadata_and_rules_are_kept_merged_and_part_of_the_digest() {
    let folder = tempfile::tempdir().expect("a folder");
    let running = Running::start(folder.path()).await;
    let registry = running.registry().await;
    let api = Api::of(&registry);
    let metadata =
        json!({"properties": {"owner": "team", "major": "1"}, "tags": {"**.a": ["PII"]}, "sensitive": ["owner"]});
    let rules = json!({"domainRules": [{"name": "positive", "kind": "CONDITION", "mode": "WRITE", "type": "CEL", "expr": "message.a > 0",
                       "params": {"k": "v"}, "onFailure": "DLQ", "disabled": false}]});
    let mut schema = record(A);
    schema["metadata"] = metadata.clone();
    schema["ruleSet"] = rules.clone();
    let with = api.done("POST", "/subjects/s/versions", Some(schema)).await;
    let plain = api.done("POST", "/subjects/plain/versions", Some(record(A))).await;
    assert_ne!(with["id"], plain["id"]);
    let found = api.get("/subjects/s/versions/1").await;
    assert_eq!((&found["metadata"], &found["ruleSet"]), (&metadata, &rules));
    assert_eq!(api.get(&format!("/schemas/ids/{}", with["id"])).await["ruleSet"], rules);
    assert_eq!(api.get("/subjects/s/metadata?key=owner&value=team&key=major&value=1").await["version"], 1);
    assert_eq!(api.refused("GET", "/subjects/s/metadata?key=owner&value=other", None).await, (404, 40403));
    assert_eq!(api.done("POST", "/subjects/s", Some(record(A))).await["version"], 1, "found without naming them");
    let next = api.done("POST", "/subjects/s/versions", Some(record(&format!("{A}, {B}")))).await;
    assert_eq!(next["metadata"], metadata, "what is not sent is that of the version before");
    let defaults = json!({"compatibility": "NONE", "defaultMetadata": {"properties": {"a": "default", "b": "default"}},
                          "overrideMetadata": {"properties": {"c": "override"}}, "compatibilityGroup": "major"});
    assert_eq!(api.done("PUT", "/config/d", Some(defaults.clone())).await, defaults);
    let mut schema = record(A);
    schema["metadata"] = json!({"properties": {"b": "own", "c": "own"}});
    api.done("POST", "/subjects/d/versions", Some(schema)).await;
    let merged = json!({"properties": {"a": "default", "b": "own", "c": "override"}});
    assert_eq!(api.get("/subjects/d/versions/1").await["metadata"], merged);
    let config = api.get("/config/d").await;
    assert_eq!((&config["compatibilityLevel"], &config["compatibilityGroup"]), (&json!("NONE"), &json!("major")));
    let bad = json!({"schema": "\"int\"", "ruleSet": {"domainRules": [{"name": "r", "mode": "UPGRADE"}]}});
    assert_eq!(api.refused("POST", "/subjects/r/versions", Some(bad)).await, (422, 42210));
    // Groups are compared within themselves only.
    api.done("PUT", "/config/g", Some(json!({"compatibility": "BACKWARD", "compatibilityGroup": "major"}))).await;
    let of = |fields: &str, major: &str| {
        let mut schema = record(fields);
        schema["metadata"] = json!({"properties": {"major": major}});
        Some(schema)
    };
    api.done("POST", "/subjects/g/versions", of(A, "1")).await;
    assert_eq!(api.refused("POST", "/subjects/g/versions", of(C, "1")).await, (409, 409));
    api.done("POST", "/subjects/g/versions", of(C, "2")).await;
    running.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn deleting_is_soft_first_and_what_is_referred_to_stays() {
    let folder = tempfile::tempdir().expect("a folder");
    let running = Running::start(folder.path()).await;
    let registry = running.registry().await;
    let api = Api::of(&registry);
    api.done("POST", "/subjects/inner/versions", Some(record(A))).await;
    let outer = json!({"schema": r#"{"type": "record", "name": "O", "fields": [{"name": "r", "type": "R"}]}"#,
                       "references": [{"name": "R", "subject": "inner", "version": -1}]});
    let outer = api.done("POST", "/subjects/outer/versions", Some(outer)).await;
    assert_eq!(outer["references"][0]["version"], 1, "the latest was meant");
    assert_eq!(api.get("/subjects/inner/versions/1/referencedby").await, json!([outer["id"]]));
    assert_eq!(api.refused("DELETE", "/subjects/inner", None).await, (422, 42206));
    assert_eq!(api.refused("DELETE", "/subjects/inner/versions/1", None).await, (422, 42206));
    let resolved = api.get("/subjects/outer/versions/1?format=resolved").await;
    assert!(resolved["schema"].as_str().is_some_and(|text| text.contains("\"a\"")), "{resolved}");
    assert_eq!(api.done("DELETE", "/subjects/outer", None).await, json!([1]));
    assert_eq!(api.refused("DELETE", "/subjects/outer", None).await, (404, 40404));
    assert_eq!(api.get("/subjects").await, json!(["inner"]));
    assert_eq!(api.get("/subjects?deleted=true").await, json!(["inner", "outer"]));
    assert_eq!(api.get("/subjects?deletedOnly=true").await, json!(["outer"]));
    assert_eq!(api.get("/subjects/outer/versions/1?deleted=true").await["deleted"], true);
    assert_eq!(api.get(&format!("/schemas/ids/{}", outer["id"])).await["references"][0]["name"], "R");
    assert_eq!(api.done("DELETE", "/subjects/outer?permanent=true", None).await, json!([1]));
    assert_eq!(api.refused("GET", &format!("/schemas/ids/{}", outer["id"]), None).await, (404, 40403));
    let next = api.done("POST", "/subjects/new/versions", Some(avro("\"int\""))).await;
    assert_eq!(next["id"].as_u64(), outer["id"].as_u64().map(|id| id + 1), "an id does not come back");
    api.done("POST", "/subjects/inner/versions", Some(record(&format!("{A}, {B}")))).await;
    assert_eq!(api.done("DELETE", "/subjects/inner/versions/1", None).await, json!(1));
    assert_eq!(api.refused("DELETE", "/subjects/inner/versions/1", None).await, (404, 40406));
    assert_eq!(api.get("/subjects/inner/versions").await, json!([2]));
    let back = api.done("POST", "/subjects/inner/versions", Some(record(A))).await;
    assert_eq!((&back["id"], &back["version"]), (&json!(1), &json!(3)), "the same schema, under its id");
    running.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn contexts_modes_and_imports_are_apart() {
    let folder = tempfile::tempdir().expect("a folder");
    let running = Running::start(folder.path()).await;
    let registry = running.registry().await;
    let api = Api::of(&registry);
    api.done("POST", "/subjects/s/versions", Some(avro("\"int\""))).await;
    let other = api.done("POST", "/subjects/:.eu:s/versions", Some(avro("\"string\""))).await;
    assert_eq!(other["id"], 1, "ids are a context's own");
    assert_eq!(api.get("/contexts").await, json!([".", ".eu"]));
    assert_eq!(api.get("/subjects").await, json!(["s", ":.eu:s"]));
    assert_eq!(api.get("/subjects?subjectPrefix=:.eu:").await, json!([":.eu:s"]));
    assert_eq!(api.get("/subjects?subjectPrefix=s").await, json!(["s"]));
    assert_eq!(api.get("/schemas/ids/1").await["schema"], "\"int\"");
    assert_eq!(api.get("/schemas/ids/1?subject=:.eu:").await["schema"], "\"string\"");
    assert_eq!(api.done("PUT", "/mode/:.eu:", Some(json!({"mode": "READONLY"}))).await, json!({"mode": "READONLY"}));
    assert_eq!(api.refused("POST", "/subjects/:.eu:s/versions", Some(avro("\"int\""))).await, (422, 42205));
    assert_eq!(api.get("/mode/:.eu:s?defaultToGlobal=true").await, json!({"mode": "READONLY"}));
    assert_eq!(api.done("DELETE", "/mode/:.eu:", None).await, json!({"mode": "READONLY"}));
    assert_eq!(api.get("/mode").await, json!({"mode": "READWRITE"}));
    api.done("PUT", "/mode/copied", Some(json!({"mode": "IMPORT"}))).await;
    let brought = json!({"schema": "\"bytes\"", "id": 500, "version": 7});
    let brought = api.done("POST", "/subjects/copied/versions", Some(brought)).await;
    assert_eq!((&brought["id"], &brought["version"]), (&json!(500), &json!(7)));
    let taken = json!({"schema": "\"float\"", "id": 500, "version": 8});
    assert_eq!(api.refused("POST", "/subjects/copied/versions", Some(taken)).await, (422, 42205));
    let next = api.done("POST", "/subjects/n/versions", Some(avro("\"double\""))).await;
    assert_eq!(next["id"], 501, "above every id that was brought");
    assert_eq!(api.refused("DELETE", "/contexts/.eu", None).await, (422, 42211));
    running.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_registries_on_a_topic_only_the_later_one_writes() {
    let folder = tempfile::tempdir().expect("a folder");
    let running = Running::start(folder.path()).await;
    let first = running.registry().await;
    let one = Api::of(&first);
    one.done("POST", "/subjects/s/versions", Some(avro("\"int\""))).await;
    let second = running.registry().await;
    let two = Api::of(&second);
    let (status, said) = one.ask("POST", "/subjects/a/versions", Some(avro("\"long\""))).await;
    assert!(status == 503 && said["error_code"] == 50004, "{said}");
    assert!(said["message"].as_str().is_some_and(|words| words.contains("taken over")), "{said}");
    let new = two.done("POST", "/subjects/b/versions", Some(avro("\"string\""))).await;
    assert_eq!(new["id"], 2);
    // The first one still reads.
    let mut tries = 0;
    while one.ask("GET", "/schemas/ids/2", None).await.0 != 200 {
        tries += 1;
        assert!(tries < 200, "the first registry does not follow");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(second.is_owner() && !first.is_owner());
    running.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cairns_contracts_are_found_by_the_guid_that_events_carry() {
    let folder = tempfile::tempdir().expect("a folder");
    let running = Running::start(folder.path()).await;
    let registry = running.registry().await;
    let published = publish_contracts(&registry).await.expect("published");
    assert_eq!(published.subjects, cairn_contract::EventType::ALL.len());
    let again = publish_contracts(&registry).await.expect("published");
    assert_eq!(again, published, "what is there stays");
    let api = Api::of(&registry);
    for event_type in cairn_contract::EventType::ALL {
        for contract in cairn_contract::contracts(event_type) {
            let found = api.get(&format!("/schemas/guids/{}", contract.guid)).await;
            assert_eq!(found["schemaType"], "JSON");
            let text: Value = serde_json::from_str(found["schema"].as_str().expect("a text")).expect("JSON");
            assert_eq!(text, serde_json::from_str::<Value>(contract.schema).expect("JSON"));
        }
    }
    let subject = "mcp.calls-call.intent";
    assert_eq!(api.get(&format!("/config/{subject}")).await["compatibilityLevel"], "FULL_TRANSITIVE");
    let other = json!({"schema": "{}", "schemaType": "JSON"});
    assert_eq!(api.refused("POST", &format!("/subjects/{subject}/versions"), Some(other)).await, (422, 42205));
    running.end().await;
}
