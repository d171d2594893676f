//! What is particular to a server: who holds it, connections that are lost, questions by whoever means harm, and tables that somebody
//! else made. What holds of every audit database is tried in `audit::tests`, on this one too.

#[path = "../../../../clients/postgres/postgres.rs"]
mod server;

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    sync::{
        Arc, Once,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use cairn_backbone::records::RawRecord;
use cairn_clock::Entropy;
use serde_json::{Value, json};

use self::server::{PASSWORD, Postgres, shared_or_skip};
use super::{Options, PostgresSink, Role, Settings, ask, find, script};
use crate::{
    Sink, SinkError,
    audit::query::{Limits, QueryError},
    fixture::{self, NOW_US, batch},
};

/// The tests' own database and its owner, who is no superuser.
fn database() -> Option<&'static Postgres> {
    static MADE: Once = Once::new();
    let server = shared_or_skip()?;
    MADE.call_once(|| {
        server.run("postgres", &format!("CREATE ROLE cairn LOGIN PASSWORD '{PASSWORD}'"));
        server.run("postgres", "CREATE DATABASE audit OWNER cairn");
    });
    Some(server)
}

fn settings(server: &Postgres, user: &str) -> Settings {
    static SCHEMAS: AtomicU32 = AtomicU32::new(0);
    let schema = Some(format!("t{}", SCHEMAS.fetch_add(1, Ordering::Relaxed)));
    let (url, password) = (server.url(user, "audit"), Some(PASSWORD.to_owned()));
    Settings { url, password, schema, ..Settings::default() }
}

fn read(settings: &Settings) -> Options {
    Options::read(settings).expect("options")
}

/// A schema that nobody else has; nothing where there is no server.
pub(crate) fn options() -> Option<Options> {
    database().map(|server| read(&settings(server, "cairn")))
}

/// Tries again while the server is away, as a consumer does.
#[allow(clippy::disallowed_methods)] // a server is waited for in its own time
fn patiently<T>(mut work: impl FnMut() -> Result<T, SinkError>) -> Result<T, SinkError> {
    let begun = tokio::time::Instant::now();
    loop {
        match work() {
            Err(SinkError::Away { .. }) if begun.elapsed() < Duration::from_secs(60) => {
                std::thread::sleep(Duration::from_millis(20));
            }
            done => return done,
        }
    }
}

/// A consumer's sink that holds its database.
pub(crate) fn sink(options: &Options) -> PostgresSink {
    let mut sink = PostgresSink::new(options.clone(), &Entropy::system(), Role::Applies);
    patiently(|| sink.positions()).expect("it holds");
    sink
}

fn records(offsets: std::ops::Range<u64>) -> Vec<RawRecord> {
    let data = json!({ "workflow_id": "w", "a": { "b": 1 } });
    offsets.map(|at| fixture::record("mcp.calls", (u128::from(at) + 1, at), "call.intent", &data, NOW_US)).collect()
}

fn number(options: &Options, sql: &str) -> i64 {
    let answer = ask(options, sql, &Limits::default()).unwrap_or_else(|error| panic!("{sql}: {error}"));
    answer.rows[0][0].as_i64().unwrap_or_else(|| panic!("{sql}: {answer:?}"))
}

const COUNT: &str = "SELECT count(*) FROM events";

#[test]
fn a_zombie_commits_nothing_and_whoever_comes_while_the_holder_lives_stands_by() {
    let Some(options) = options() else { return };
    let mut first = sink(&options);
    first.apply(&batch(None, records(0..3))).expect("applied");
    let mut second = PostgresSink::new(options.clone(), &Entropy::system(), Role::Applies);
    let standing = second.control().expect_err("it stands by");
    assert!(matches!(&standing, SinkError::Away { reason } if reason.contains("stands by")), "{standing:?}");
    // An operator, and a replay, write beside it.
    let mut beside = PostgresSink::new(options.clone(), &Entropy::system(), Role::Operates);
    assert_eq!(beside.replace(&batch(Some(0), records(0..3))).expect("replaced").changed, 0);
    beside.pause(true).expect("paused");
    assert!(first.control().expect("control").is_paused);
    // It is stalled: for whoever looks, it said nothing for long.
    let server = database().expect("it was there");
    let stalled = format!("UPDATE {}.holder SET seen = seen - interval '1 minute'", options.schema);
    server.run("audit", &stalled);
    patiently(|| second.positions()).expect("it took over");
    let late = first.apply(&batch(Some(3), records(3..6)));
    assert!(matches!(late, Err(SinkError::Taken { .. })), "{late:?}");
    assert!(matches!(patiently(|| first.control()), Err(SinkError::Taken { .. })), "it ends");
    assert_eq!((number(&options, COUNT), number(&options, "SELECT next FROM places")), (3, 3));
    second.apply(&batch(Some(3), records(3..6))).expect("applied");
    assert_eq!(number(&options, COUNT), 6);
    // One that ended is followed at once.
    drop(second);
    let mut third = sink(&options);
    third.apply(&batch(Some(6), records(6..7))).expect("applied");
}

#[test]
fn a_connection_that_is_lost_is_made_anew() {
    let Some(options) = options() else { return };
    let mut sink = sink(&options);
    sink.apply(&batch(None, records(0..3))).expect("applied");
    let server = database().expect("it was there");
    let ended = format!("SELECT pg_terminate_backend(backend) FROM {}.holder", options.schema);
    server.run("audit", &ended);
    patiently(|| sink.apply(&batch(Some(3), records(3..6)))).expect("applied");
    assert_eq!(number(&options, COUNT), 6);
}

/// Something between a client and the server that can swallow the answer to a commit, or the commit.
struct Between {
    port: u16,
    swallows: Arc<AtomicBool>,
    passes_commit: Arc<AtomicBool>,
}

impl Between {
    fn start(to: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let (swallows, passes_commit) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let (armed, passes) = (swallows.clone(), passes_commit.clone());
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let Ok(server) = TcpStream::connect(("127.0.0.1", to)) else { return };
                let (mut from, mut back) = (server.try_clone().expect("a copy"), client.try_clone().expect("a copy"));
                std::thread::spawn(move || std::io::copy(&mut from, &mut back));
                let (armed, passes) = (armed.clone(), passes.clone());
                std::thread::spawn(move || carry(client, server, &armed, &passes));
            }
        });
        Self { port, swallows, passes_commit }
    }
}

fn carry(mut client: TcpStream, mut server: TcpStream, armed: &AtomicBool, passes: &AtomicBool) {
    let mut bytes = [0; 16 << 10];
    while let Ok(length @ 1..) = client.read(&mut bytes) {
        let part = &bytes[..length];
        if part.windows(6).any(|word| word == b"COMMIT") && armed.swap(false, Ordering::SeqCst) {
            // The client hears nothing of what becomes of it.
            let _ = client.shutdown(std::net::Shutdown::Both);
            if passes.load(Ordering::SeqCst) {
                let _ = server.write_all(part);
                // Until it was done there.
                let _ = server.set_read_timeout(Some(Duration::from_secs(1)));
                let _ = server.read(&mut [0; 64]);
            }
            let _ = server.shutdown(std::net::Shutdown::Both);
            return;
        }
        if server.write_all(part).is_err() {
            return;
        }
    }
    let _ = server.shutdown(std::net::Shutdown::Both);
}

#[test]
fn a_commit_whose_answer_is_lost_is_found_out_by_the_positions() {
    let Some(server) = database() else { return };
    let between = Between::start(server.port);
    let direct = settings(server, "cairn");
    let by =
        Settings { url: direct.url.replace(&server.port.to_string(), &between.port.to_string()), ..direct.clone() };
    let (direct, by) = (read(&direct), read(&by));
    let mut sink = sink(&by);
    let lost = |sink: &mut PostgresSink, from: Option<u64>, to: u64| {
        between.swallows.store(true, Ordering::SeqCst);
        let said = sink.apply(&batch(from, records(from.unwrap_or_default()..to)));
        assert!(matches!(said, Err(SinkError::Away { .. })), "{said:?}");
    };
    // It was committed, and nobody said so: the same batch finds that it does not stand there any more.
    between.passes_commit.store(true, Ordering::SeqCst);
    lost(&mut sink, None, 3);
    assert_eq!(patiently(|| sink.apply(&batch(None, records(0..3)))), Err(SinkError::Moved));
    assert_eq!(sink.positions().expect("positions")[0].next, 3);
    // It was not: the same batch is applied.
    between.passes_commit.store(false, Ordering::SeqCst);
    lost(&mut sink, Some(3), 6);
    assert_eq!(patiently(|| sink.apply(&batch(Some(3), records(3..6)))), Ok(()));
    assert_eq!((number(&direct, COUNT), number(&direct, "SELECT count(DISTINCT id) FROM events")), (6, 6));
}

#[test]
fn an_event_that_the_server_does_not_take_is_named_and_one_with_a_nul_is_kept() {
    let Some(options) = options() else { return };
    let mut sink = sink(&options);
    // Longer than what PostgreSQL indexes, and of nothing that it could press together.
    let mut state = 7_u32;
    let noise: String = (0..16_000)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            char::from(b'0' + u8::try_from(state >> 24).expect("a byte") % 75)
        })
        .collect();
    let mut all = records(0..5);
    let wide = json!({ "workflow_id": noise });
    all[3] = fixture::record("mcp.calls", (4, 3), "call.intent", &wide, NOW_US);
    all[1] = fixture::record("mcp.calls", (2, 1), "call.intent", &json!({ "workflow_id": "a\0b" }), NOW_US);
    let said = sink.apply(&batch(None, all.clone()));
    assert_eq!(said, Err(SinkError::Refused { index: 3, reason: crate::database::REFUSED.to_owned() }));
    assert_eq!(number(&options, COUNT), 0);
    let mut rest = batch(None, all);
    rest.bury(3, crate::database::REFUSED.to_owned());
    sink.apply(&rest).expect("applied");
    assert_eq!((number(&options, COUNT), number(&options, "SELECT count(*) FROM dead_letters")), (4, 1));
    assert_eq!(number(&options, "SELECT count(*) FROM events WHERE workflow_id = 'a\u{2400}b'"), 1);
    assert_eq!(find(&options, &["a\0b"]).expect("an index")[0].offsets, [1, 3]);
    let whole =
        "SELECT count(*) FROM events WHERE json_extract(data, '$.workflow_id') = 'w' AND data LIKE '%contract%'";
    assert_eq!(number(&options, whole), 3);
    let odd = "SELECT json_extract(data, '$.workflow_id') FROM events WHERE \"offset\" = 1";
    assert_eq!(ask(&options, odd, &Limits::default()).expect("an answer").rows, [[json!("a\u{fffd}b")]]);
}

#[test]
fn one_workflow_is_found_by_its_index_once_much_has_come() {
    let Some(options) = options() else { return };
    let mut sink = sink(&options);
    let record = |at: u64| {
        let call = format!("c{}", at / 3);
        let data = json!({ "workflow_id": format!("w{}", at / 30), "call_id": call });
        let name = ["call.decision", "call.intent", "call.outcome"][usize::try_from(at % 3).expect("small")];
        fixture::record("mcp.calls", (u128::from(at) + 1, at), name, &data, NOW_US)
    };
    for begin in (0..15_000).step_by(3_000) {
        let from = (begin > 0).then_some(begin);
        sink.apply(&batch(from, (begin..begin + 3_000).map(record))).expect("applied");
    }
    sink.tend(cairn_clock::Timestamp::from_micros(NOW_US)).expect("tended");
    assert_eq!(number(&options, "SELECT count(*) FROM calls WHERE workflow_id = 'w7'"), 10);
    let server = database().expect("it was there");
    let schema = &options.schema;
    for table in ["events", "calls"] {
        let sql = format!("EXPLAIN SELECT * FROM {schema}.{table} WHERE workflow_id = 'w7'");
        let plan: Vec<String> = server.run("audit", &sql).into_iter().flatten().flatten().collect();
        assert!(plan.iter().any(|line| line.contains("events_workflow")), "{plan:#?}");
        assert!(!plan.iter().any(|line| line.contains("Seq Scan")), "{plan:#?}");
    }
}

fn refusal(options: &Options, sql: &str) -> QueryError {
    match ask(options, sql, &Limits::default()) {
        Err(error) => error,
        Ok(answer) => panic!("{sql}: {answer:?}"),
    }
}

/// Whoever asks would have every right: the walls are tried without the last one.
fn as_superuser(server: &Postgres) -> (Settings, Options) {
    let settings = settings(server, "postgres");
    let options = read(&settings);
    (settings, options)
}

#[test]
fn questions_read_cairns_tables_and_nothing_else_whatever_the_user_could_do() {
    let Some(server) = database() else { return };
    let (settings, options) = as_superuser(server);
    let mut sink = sink(&options);
    sink.apply(&batch(None, records(0..3))).expect("applied");
    let schema = settings.schema.expect("one");
    server.run("audit", &format!("CREATE TABLE public.{schema}_own (a int); CREATE FUNCTION {schema}.harm() RETURNS int LANGUAGE sql AS 'DELETE FROM {schema}.events RETURNING 1'"));
    let file = server.data().join(&schema);
    let (file, own) = (file.display(), format!("public.{schema}_own"));
    for sql in [
        "DELETE FROM events",
        "DELETE FROM events RETURNING 1",
        "INSERT INTO state VALUES ('a', 'b') RETURNING key",
        "UPDATE places SET next = 0",
        "TRUNCATE events",
        "DROP TABLE events",
        "CREATE TABLE a (b int)",
        "CREATE TEMP TABLE a AS SELECT 1",
        "SELECT 1 INTO a",
        "WITH x AS (DELETE FROM events RETURNING 1) SELECT * FROM x",
        "SELECT * FROM (WITH x AS (DELETE FROM events RETURNING 1) SELECT * FROM x) y",
        "SELECT * FROM events FOR UPDATE",
        "SET TRANSACTION READ WRITE",
        "SET default_transaction_read_only = off",
        "BEGIN READ WRITE",
        "COMMIT",
        "SHOW data_directory",
        "EXPLAIN ANALYZE DELETE FROM events",
        "LOCK TABLE events",
        "NOTIFY a",
        "DO $$ BEGIN DELETE FROM events; END $$",
        "CALL harm()",
        "COPY events TO '/tmp/x'",
        &format!("COPY (SELECT 1) TO PROGRAM 'touch {file}'"),
        &format!("COPY events FROM PROGRAM 'touch {file}'"),
        "SELECT 1; DELETE FROM events",
        "SELECT 1; COMMIT; DELETE FROM events",
        "SELECT 1) AS a, (SELECT 2",
        "SELECT 1) AS cairn_question) AS cairn_row; DELETE FROM events; --",
        "SELECT set_config('transaction_read_only', 'off', false)",
        "SELECT pg_catalog.set_config('role', 'postgres', false)",
        "SELECT pg_terminate_backend(backend) FROM holder",
        "SELECT PG_Terminate_Backend (backend) FROM holder",
        "SELECT \"pg_terminate_backend\"(backend) FROM holder",
        "SELECT U&\"\\0070g_terminate_backend\"(backend) FROM holder",
        "SELECT pg_terminate_backend/* */(backend) FROM holder",
        "SELECT pg_cancel_backend(backend) FROM holder",
        "SELECT pg_sleep(1)",
        "SELECT pg_read_file('postgresql.conf')",
        "SELECT pg_ls_dir('.')",
        &format!("SELECT lo_export(1, '{file}')"),
        "SELECT lo_import('/etc/passwd')",
        "SELECT lo_from_bytea(0, 'a')",
        "SELECT nextval('places_place_seq')",
        "SELECT pg_advisory_lock(1)",
        "SELECT pg_notify('a', 'b')",
        "SELECT pg_reload_conf()",
        "SELECT current_setting('data_directory')",
        "SELECT query_to_xml('SELECT rolpassword FROM pg_authid', true, true, '')",
        "SELECT table_to_xml('pg_authid', true, true, '')",
        "SELECT * FROM pg_authid",
        "SELECT rolpassword FROM pg_catalog.pg_authid",
        "SELECT (SELECT count(*) FROM pg_shadow)",
        "SELECT * FROM events JOIN pg_stat_activity ON true",
        "SELECT * FROM information_schema.tables",
        &format!("SELECT * FROM {own}"),
        &format!("TABLE {own}"),
        "SELECT harm()",
        &format!("SELECT {schema}.harm()"),
        "SELECT public.anything(1)",
        "SELECT 1 OPERATOR(pg_catalog.+) 1",
        "SELECT $1",
        "VACUUM",
        "ALTER SYSTEM SET archive_command = 'x'",
        "",
    ] {
        let refusal = refusal(&options, sql);
        let is_no = matches!(refusal, QueryError::Refused { .. } | QueryError::Sql { .. });
        assert!(is_no, "{sql}: {refusal:?}");
    }
    assert!(!std::path::Path::new(&file.to_string()).exists());
    assert_eq!(number(&options, COUNT), 3);
    assert_eq!(number(&options, "SELECT next FROM places"), 3);
    assert!(sink.control().is_ok(), "nobody ended its connection");
    for sql in [
        "SELECT count(*), sum(\"offset\"), avg(time_us), max(json_extract(data, '$.a.b')) FROM events",
        "WITH x(a) AS (SELECT lower(type) FROM events) SELECT a, count(*) FROM x GROUP BY a -- a word",
        "TABLE places;",
        "VALUES (1, 'a;b'), (2, $$;$$)",
        "SELECT * FROM calls UNION ALL SELECT * FROM calls ORDER BY 1",
        "SELECT e.offset, row_number() OVER (PARTITION BY topic ORDER BY seq) FROM events e",
        "SELECT events.id, decisions.* FROM events, decisions, approvals LIMIT 1",
        "SELECT date_trunc('day', to_timestamp(time_us / 1000000)), now(), random() FROM events",
    ] {
        ask(&options, sql, &Limits::default()).unwrap_or_else(|error| panic!("{sql}: {error}"));
    }
    let twice = ask(&options, "SELECT 1 AS a, 2 AS a, true, NULL, 1.5", &Limits::default()).expect("an answer");
    assert_eq!(
        (twice.columns.len(), &twice.rows[0]),
        (5, &vec![json!(1), json!(2), json!(true), Value::Null, json!(1.5)])
    );
}

#[test]
fn questions_are_bounded_in_time_rows_and_bytes() {
    let Some(options) = options() else { return };
    let nowhere = refusal(&options, "SELECT 1");
    assert!(matches!(&nowhere, QueryError::Missing { path } if path.contains("127.0.0.1")), "{nowhere:?}");
    let _sink = sink(&options);
    let limits = Limits { rows_max: 3, bytes_max: 10_000, time_max: Duration::from_secs(1) };
    let endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)";
    let begun = tokio::time::Instant::now();
    let slow = ask(&options, &format!("{endless} SELECT count(*) FROM n"), &limits);
    assert!(matches!(slow, Err(QueryError::Slow { .. })), "{slow:?}");
    assert!(begun.elapsed() < Duration::from_secs(20), "it took {:?}", begun.elapsed());
    let limits = Limits { time_max: Duration::from_secs(30), ..limits };
    let cut = ask(&options, "SELECT generate_series(1, 1000000)", &limits).expect("rows");
    assert_eq!((cut.rows.len(), cut.is_cut), (3, true));
    let wide = ask(&options, "SELECT repeat('a', 8000) FROM generate_series(1, 9)", &limits).expect("rows");
    assert_eq!((wide.rows.len(), wide.is_cut), (1, true));
    let huge = ask(&options, "SELECT repeat('a', 100000000)", &limits);
    assert!(matches!(&huge, Err(QueryError::Sql { reason }) if reason.contains("row is larger")), "{huge:?}");
}

#[test]
fn tables_may_be_made_by_somebody_else_and_newer_ones_are_refused() {
    let Some(server) = database() else { return };
    server.run(
        "postgres",
        &format!("CREATE ROLE writer LOGIN PASSWORD '{PASSWORD}'; CREATE ROLE reader LOGIN PASSWORD 'another'"),
    );
    let mut settings = settings(server, "writer");
    settings.query_user = Some("reader".to_owned());
    settings.query_password = Some("another".to_owned());
    let options = read(&settings);
    let mut writer = PostgresSink::new(options.clone(), &Entropy::seeded(1), Role::Applies);
    let denied = writer.positions().expect_err("it may make no schema");
    assert!(
        matches!(&denied, SinkError::Broken { reason } if reason.contains("cairn consumer schema audit")),
        "{denied:?}"
    );
    assert!(!writer.has_tables().expect("it says"));
    server.run("audit", &script(&options.schema, Some("writer"), Some("reader")));
    let mut writer = sink(&options);
    writer.apply(&batch(None, records(0..3))).expect("applied");
    writer.tend(cairn_clock::Timestamp::from_micros(NOW_US)).expect("tended");
    writer.move_to(&[]).expect("moved");
    assert_eq!(number(&options, COUNT), 3);
    assert_eq!(number(&options, "SELECT count(*) FROM calls"), 0);
    assert!(!find(&options, &["w"]).expect("an index")[0].offsets.is_empty());
    let who = ask(&options, "SELECT current_user", &Limits::default()).expect("an answer");
    assert_eq!(who.rows, [[json!("reader")]], "who asks may only read");
    server.run("audit", &format!("UPDATE {}.state SET value = '99' WHERE key = 'layout'", options.schema));
    drop(writer);
    let mut newer = PostgresSink::new(options.clone(), &Entropy::seeded(1), Role::Applies);
    let newer = newer.positions().expect_err("it is newer");
    assert!(matches!(&newer, SinkError::Broken { reason } if reason.contains("layout 99")), "{newer:?}");
    assert!(matches!(refusal(&options, "SELECT 1"), QueryError::Away { reason } if reason.contains("layout 99")));
}

#[test]
fn errors_say_what_to_do_and_never_the_password() {
    let Some(server) = database() else { return };
    let said = |settings: &Settings| {
        let options = read(settings);
        let mut sink = PostgresSink::new(options.clone(), &Entropy::seeded(1), Role::Applies);
        let error = sink.positions().expect_err("it cannot be reached").to_string();
        let asked = refusal(&options, "SELECT 1").to_string();
        assert!(!format!("{error} {asked} {sink:?} {settings:?}").contains("s3cret"), "{error} {asked}");
        error
    };
    let wrong = Settings { password: Some("s3cret".to_owned()), ..settings(server, "cairn") };
    assert!(said(&wrong).contains("consumers.audit.password"), "{}", said(&wrong));
    let mut none = settings(server, "cairn");
    none.url = server.url("cairn", "nothing_there");
    assert!(said(&none).contains("CREATE DATABASE"), "{}", said(&none));
    let mut tls = settings(server, "cairn");
    tls.url += "?sslmode=verify-full";
    assert!(said(&tls).contains("sslmode=disable"), "{}", said(&tls));
    let mut away = Settings { password: Some("s3cret".to_owned()), ..settings(server, "cairn") };
    away.url = "postgres://cairn@127.0.0.1:1/audit".to_owned();
    assert!(said(&away).contains("127.0.0.1:1"), "{}", said(&away));
}
