//! Rows of `events` in PostgreSQL's binary format of COPY, which is its quickest way in.
//!
//! A header, then for each row the number of its columns and for each column its length and its bytes, big-endian; a length of -1 is
//! NULL, and a row of -1 columns is the end.

use std::pin::pin;

use bytes::{BufMut, Bytes, BytesMut};
use futures::SinkExt;
use tokio_postgres::{Statement, Transaction};

use crate::audit::{COLUMNS, Cell};

/// How much is gathered before it goes out.
const CHUNK_BYTES: usize = 256 << 10;
const COLUMNS_A_ROW: i16 = COLUMNS.len() as i16 + 1;
/// What stands for a NUL, of which PostgreSQL's texts hold none.
const NUL: &str = "\u{2400}";

/// One row: its `seq`, and what is behind it.
pub(super) type Row<'a> = (i64, [Cell<'a>; COLUMNS.len()]);

/// The statement that takes rows.
pub(super) fn statement() -> String {
    let columns: Vec<String> = COLUMNS.iter().map(|name| format!("\"{name}\"")).collect();
    format!("COPY events (seq, {}) FROM STDIN (FORMAT binary)", columns.join(", "))
}

/// A text as a column holds it.
pub(super) fn without_nul(text: &str) -> std::borrow::Cow<'_, str> {
    if text.contains('\0') { text.replace('\0', NUL).into() } else { text.into() }
}

/// Gives rows to the server.
pub(super) async fn copy<'a>(
    begun: &Transaction<'_>,
    statement: &Statement,
    rows: impl Iterator<Item = &'a Row<'a>>,
) -> Result<(), tokio_postgres::Error> {
    let mut sink = pin!(begun.copy_in::<_, Bytes>(statement).await?);
    let mut bytes = BytesMut::with_capacity(CHUNK_BYTES + (16 << 10));
    bytes.put_slice(b"PGCOPY\n\xff\r\n\0");
    bytes.put_i32(0);
    bytes.put_i32(0);
    for (seq, cells) in rows {
        bytes.put_i16(COLUMNS_A_ROW);
        bytes.put_i32(8);
        bytes.put_i64(*seq);
        cells.iter().for_each(|cell| put(&mut bytes, *cell));
        if bytes.len() >= CHUNK_BYTES {
            sink.feed(bytes.split().freeze()).await?;
        }
    }
    bytes.put_i16(-1);
    sink.feed(bytes.freeze()).await?;
    sink.as_mut().finish().await.map(drop)
}

fn put(bytes: &mut BytesMut, cell: Cell<'_>) {
    match cell {
        Cell::Nothing => bytes.put_i32(-1),
        Cell::Number(number) => {
            bytes.put_i32(8);
            bytes.put_i64(number);
        }
        Cell::Id(id) => put_text(bytes, id.hyphenated().encode_lower(&mut [0; uuid::fmt::Hyphenated::LENGTH])),
        Cell::Text(text) => put_text(bytes, &without_nul(text)),
    }
}

fn put_text(bytes: &mut BytesMut, text: &str) {
    // A record is far shorter.
    bytes.put_i32(i32::try_from(text.len()).unwrap_or(i32::MAX));
    bytes.put_slice(text.as_bytes());
}
