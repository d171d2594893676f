//! Reads OTLP metrics (`MetricsData` of OpenTelemetry 1.x, Protocol Buffers) as clients push them (KIP-714). Called by telemetry.
//!
//! Gauges and sums are taken, which is what Kafka's clients send; other kinds are counted and left out. It guarantees: memory is
//! taken for bytes that are there only, what is taken is bounded, and bytes that are no such message are refused.

/// Points of one push that are taken.
pub(super) const POINTS_MAX: usize = 1_000;
/// Bytes of a metric's name, of a label, and labels of one point.
const NAME_BYTES_MAX: usize = 200;
const LABELS_MAX: usize = 8;

/// One value.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Point {
    /// The metric, as the client names it.
    pub(crate) name: String,
    pub(crate) labels: Vec<(String, String)>,
    pub(crate) value: f64,
}

/// What a push says.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Pushed {
    pub(crate) points: Vec<Point>,
    /// Points that were not taken: of another kind, or too many.
    pub(crate) left_out: u64,
}

/// The bytes are no metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("these bytes are no OTLP metrics")]
pub(crate) struct NoMetrics;

/// A field's value.
#[derive(Debug, Clone, Copy)]
enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// Reads a push.
pub(crate) fn read(bytes: &[u8]) -> Result<Pushed, NoMetrics> {
    let mut pushed = Pushed::default();
    each(bytes, |field, value| match (field, value) {
        (1, Value::Bytes(resource)) => each(resource, |field, value| match (field, value) {
            (2, Value::Bytes(scope)) => each(scope, |field, value| match (field, value) {
                (2, Value::Bytes(metric)) => read_metric(metric, &mut pushed),
                _ => Ok(()),
            }),
            _ => Ok(()),
        }),
        _ => Ok(()),
    })?;
    Ok(pushed)
}

fn read_metric(bytes: &[u8], pushed: &mut Pushed) -> Result<(), NoMetrics> {
    let (mut name, mut points) = (String::new(), Vec::new());
    each(bytes, |field, value| {
        match (field, value) {
            (1, Value::Bytes(text)) => name = short(text)?,
            // A gauge or a sum: points come first in both.
            (5 | 7, Value::Bytes(data)) => each(data, |field, value| {
                match (field, value) {
                    (1, Value::Bytes(point)) if points.len() < POINTS_MAX => points.push(point),
                    (1, Value::Bytes(_)) => pushed.left_out += 1,
                    _ => {}
                }
                Ok(())
            })?,
            (9..=11, Value::Bytes(_)) => pushed.left_out += 1,
            _ => {}
        }
        Ok(())
    })?;
    for point in points {
        if pushed.points.len() >= POINTS_MAX {
            pushed.left_out += 1;
            continue;
        }
        match read_point(point)? {
            Some((labels, value)) => pushed.points.push(Point { name: name.clone(), labels, value }),
            None => pushed.left_out += 1,
        }
    }
    Ok(())
}

type Labels = Vec<(String, String)>;

fn read_point(bytes: &[u8]) -> Result<Option<(Labels, f64)>, NoMetrics> {
    let (mut labels, mut found) = (Vec::new(), None);
    each(bytes, |field, value| {
        match (field, value) {
            (4, Value::Number(bits)) => found = Some(f64::from_bits(bits)),
            (6, Value::Number(bits)) => found = Some(bits.cast_signed() as f64),
            (7, Value::Bytes(label)) if labels.len() < LABELS_MAX => labels.extend(read_label(label)?),
            _ => {}
        }
        Ok(())
    })?;
    Ok(found.map(|value| (labels, value)))
}

/// A label, where it is a text, a truth value or a number.
fn read_label(bytes: &[u8]) -> Result<Option<(String, String)>, NoMetrics> {
    let (mut key, mut found) = (String::new(), None);
    each(bytes, |field, value| {
        match (field, value) {
            (1, Value::Bytes(text)) => key = short(text)?,
            (2, Value::Bytes(any)) => each(any, |field, value| {
                match (field, value) {
                    (1, Value::Bytes(text)) => found = Some(short(text)?),
                    (2, Value::Number(truth)) => found = Some((truth != 0).to_string()),
                    (3, Value::Number(number)) => found = Some(number.cast_signed().to_string()),
                    (4, Value::Number(bits)) => found = Some(f64::from_bits(bits).to_string()),
                    _ => {}
                }
                Ok(())
            })?,
            _ => {}
        }
        Ok(())
    })?;
    Ok(found.filter(|_| !key.is_empty()).map(|value| (key, value)))
}

/// A text, cut to a length that can be shown.
fn short(bytes: &[u8]) -> Result<String, NoMetrics> {
    let text = std::str::from_utf8(bytes).map_err(|_| NoMetrics)?;
    let mut end = NAME_BYTES_MAX.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    Ok(text[..end].to_owned())
}

/// Goes through the fields of a message.
fn each<'a>(
    mut bytes: &'a [u8],
    mut take: impl FnMut(u64, Value<'a>) -> Result<(), NoMetrics>,
) -> Result<(), NoMetrics> {
    while !bytes.is_empty() {
        let tag = varint(&mut bytes)?;
        let value = match tag & 7 {
            0 => Value::Number(varint(&mut bytes)?),
            1 => Value::Number(u64::from_le_bytes(cut(&mut bytes, 8)?.try_into().expect("eight bytes"))),
            2 => {
                let length = usize::try_from(varint(&mut bytes)?).map_err(|_| NoMetrics)?;
                Value::Bytes(cut(&mut bytes, length)?)
            }
            5 => Value::Number(u32::from_le_bytes(cut(&mut bytes, 4)?.try_into().expect("four bytes")).into()),
            _ => return Err(NoMetrics),
        };
        take(tag >> 3, value)?;
    }
    Ok(())
}

fn cut<'a>(bytes: &mut &'a [u8], length: usize) -> Result<&'a [u8], NoMetrics> {
    let (head, tail) = bytes.split_at_checked(length).ok_or(NoMetrics)?;
    *bytes = tail;
    Ok(head)
}

fn varint(bytes: &mut &[u8]) -> Result<u64, NoMetrics> {
    let mut value = 0_u64;
    for at in 0..10 {
        let byte = cut(bytes, 1)?[0];
        value |= u64::from(byte & 0x7f).checked_shl(7 * at).ok_or(NoMetrics)?;
        if byte < 0x80 {
            return Ok(value);
        }
    }
    Err(NoMetrics)
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
        let mut length = bytes.len();
        let mut out = vec![number << 3 | 2];
        while length >= 0x80 {
            out.push(length as u8 | 0x80);
            length >>= 7;
        }
        out.push(length as u8);
        out.extend_from_slice(bytes);
        out
    }

    /// A push of one metric, of a kind by its field, with so many points.
    pub(crate) fn push_of(name: &str, kind: u8, value: f64, points: usize) -> Vec<u8> {
        let label = [field(1, b"topic"), field(2, &field(1, b"orders"))].concat();
        let point = [field(7, &label), vec![4 << 3 | 1], value.to_le_bytes().to_vec()].concat();
        let data = field(1, &point).repeat(points);
        let metric = [field(1, name.as_bytes()), field(kind, &data)].concat();
        field(1, &field(2, &field(2, &metric)))
    }

    #[test]
    fn gauges_and_sums_are_read_and_other_kinds_counted() {
        let bytes = [push_of("a.b", 5, 1.5, 1), push_of("c", 7, 2.0, 2), push_of("d", 9, 0.0, 1)].concat();
        let pushed = read(&bytes).expect("metrics");
        let labels = vec![("topic".to_owned(), "orders".to_owned())];
        let point = |name: &str, value| Point { name: name.to_owned(), labels: labels.clone(), value };
        assert_eq!(pushed.points, [point("a.b", 1.5), point("c", 2.0), point("c", 2.0)]);
        assert_eq!(pushed.left_out, 1);
    }

    #[test]
    fn what_is_taken_of_one_push_is_bounded() {
        let pushed = read(&push_of(&"n".repeat(1_000), 5, 1.0, POINTS_MAX + 5)).expect("metrics");
        assert_eq!((pushed.points.len(), pushed.left_out), (POINTS_MAX, 5));
        assert_eq!(pushed.points[0].name.len(), NAME_BYTES_MAX);
    }

    #[test]
    fn bytes_that_are_cut_short_are_refused() {
        let bytes = push_of("a", 5, 1.0, 1);
        assert!((1..bytes.len()).all(|end| read(&bytes[..end]) == Err(NoMetrics)));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_fail(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = read(&bytes);
        }
    }
}
