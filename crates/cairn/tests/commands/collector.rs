//! A collector of the tests' own: takes OTLP over HTTP, answers as it is told, and reads what it was sent by code that shares nothing with
//! what wrote it.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    sync::Arc,
};

use parking_lot::Mutex;

/// A span as it came.
#[derive(Clone, PartialEq, Debug, Default)]
pub(crate) struct Span {
    pub(crate) trace_id: String,
    pub(crate) span_id: String,
    pub(crate) parent: String,
    pub(crate) name: String,
    pub(crate) attributes: BTreeMap<String, String>,
    pub(crate) is_error: bool,
}

impl Span {
    pub(crate) fn of(&self, name: &str) -> &str {
        self.attributes.get(name).map(String::as_str).unwrap_or_default()
    }
}

/// What came, and what is answered.
#[derive(Default)]
struct Held {
    spans: Vec<Span>,
    metrics: Vec<String>,
    authorization: String,
}

/// A collector on loopback.
#[derive(Clone)]
pub(crate) struct Collector {
    pub(crate) url: String,
    held: Arc<Mutex<Held>>,
}

impl Collector {
    /// `answers` says with which status the request of that number is answered; what is not answered with 200 is not kept.
    pub(crate) fn start(answers: impl Fn(usize) -> u16 + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("bound"));
        let (held, asked, answers) = (Arc::<Mutex<Held>>::default(), Arc::new(Mutex::new(0)), Arc::new(answers));
        let collector = Self { url, held: held.clone() };
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (held, asked, answers) = (held.clone(), asked.clone(), answers.clone());
                std::thread::spawn(move || {
                    serve(stream, &held, || {
                        let mut asked = asked.lock();
                        *asked += 1;
                        answers(*asked)
                    });
                });
            }
        });
        collector
    }

    pub(crate) fn spans(&self) -> Vec<Span> {
        self.held.lock().spans.clone()
    }

    /// The names of the metrics that came.
    pub(crate) fn metrics(&self) -> Vec<String> {
        self.held.lock().metrics.clone()
    }

    pub(crate) fn authorization(&self) -> String {
        self.held.lock().authorization.clone()
    }
}

fn serve(stream: TcpStream, held: &Mutex<Held>, status: impl Fn() -> u16) {
    let mut reader = BufReader::new(stream.try_clone().expect("one more"));
    let mut stream = stream;
    loop {
        let (mut length, mut path, mut authorization) = (0, String::new(), String::new());
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).unwrap_or_default() == 0 {
                return;
            }
            if path.is_empty() {
                path = line.split(' ').nth(1).unwrap_or_default().to_owned();
            }
            match line.split_once(':').map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned())) {
                Some((name, value)) if name == "content-length" => length = value.parse().expect("a number"),
                Some((name, value)) if name == "authorization" => authorization = value,
                _ => {}
            }
            if line == "\r\n" {
                break;
            }
        }
        let mut body = vec![0; length];
        if reader.read_exact(&mut body).is_err() {
            return;
        }
        let status = if path == "/v1/traces" { status() } else { 200 };
        if status == 200 {
            let mut held = held.lock();
            held.authorization = authorization;
            let scoped = within(&body, 1).into_iter().flat_map(|resource| within(resource, 2));
            let items = scoped.flat_map(|scope| within(scope, 2));
            if path == "/v1/traces" {
                held.spans.extend(items.map(span));
            } else {
                held.metrics.extend(items.map(|metric| text(metric, 1)));
            }
        }
        let head = format!("HTTP/1.1 {status} X\r\ncontent-type: application/x-protobuf\r\ncontent-length: 0\r\n\r\n");
        if stream.write_all(head.as_bytes()).is_err() {
            return;
        }
    }
}

/// A field of a message: its number, and what it holds where that has a length.
fn each(mut rest: &[u8], mut field: impl FnMut(u64, Option<u64>, &[u8])) {
    while !rest.is_empty() {
        let key = varint(&mut rest);
        let (number, bytes) = match key & 7 {
            0 => (Some(varint(&mut rest)), 0),
            1 => (None, 8),
            2 => {
                let length = varint(&mut rest);
                (None, usize::try_from(length).expect("a length"))
            }
            form => panic!("a field of the form {form}"),
        };
        let (held, left) = rest.split_at(bytes);
        field(key >> 3, number, held);
        rest = left;
    }
}

fn varint(rest: &mut &[u8]) -> u64 {
    let mut number = 0;
    for shift in (0..).step_by(7) {
        let (byte, left) = rest.split_first().expect("a whole number");
        *rest = left;
        number |= u64::from(byte & 0x7f) << shift;
        if *byte < 0x80 {
            break;
        }
    }
    number
}

fn within(message: &[u8], wanted: u64) -> Vec<&[u8]> {
    let (mut all, base) = (Vec::new(), message.as_ptr() as usize);
    each(message, |number, _, held| {
        if number == wanted {
            all.push((held.as_ptr() as usize - base, held.len()));
        }
    });
    all.into_iter().map(|(at, length)| &message[at..at + length]).collect()
}

fn text(message: &[u8], wanted: u64) -> String {
    within(message, wanted).first().map(|text| String::from_utf8_lossy(text).into_owned()).unwrap_or_default()
}

fn span(message: &[u8]) -> Span {
    let id = |wanted| within(message, wanted).first().map(|id| id.iter().map(|b| format!("{b:02x}")).collect());
    let attribute = |pair: &[u8]| {
        let mut value = String::new();
        each(within(pair, 2).first().expect("a value"), |form, number, held| {
            value = match (form, number) {
                (1, _) => String::from_utf8_lossy(held).into_owned(),
                (_, Some(number)) => number.to_string(),
                _ => within(held, 1).iter().map(|one| text(one, 1)).collect::<Vec<_>>().join(","),
            };
        });
        (text(pair, 1), value)
    };
    Span {
        trace_id: id(1).unwrap_or_default(),
        span_id: id(2).unwrap_or_default(),
        parent: id(4).unwrap_or_default(),
        name: text(message, 5),
        attributes: within(message, 9).into_iter().map(attribute).collect(),
        is_error: !within(message, 15).is_empty(),
    }
}
