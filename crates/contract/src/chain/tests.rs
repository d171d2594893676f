//! The layout is held to the vectors in `contracts/chain.md`.

use super::*;

const PAGE: &str = include_str!("../../../../contracts/chain.md");

/// A vector in the page: lines `key:`, `header:` (name, space, hexadecimal value), `value:`, `link:` in a fence.
struct Vector {
    key: Vec<u8>,
    headers: Vec<(String, Vec<u8>)>,
    value: Vec<u8>,
    link: String,
}

fn vectors() -> Vec<Vector> {
    let mut vectors = Vec::new();
    for block in PAGE.split("```vector\n").skip(1) {
        let block = block.split("```").next().unwrap();
        let mut vector = Vector { key: vec![], headers: vec![], value: vec![], link: String::new() };
        for line in block.lines() {
            let (name, rest) = line.split_once(':').unwrap();
            let rest = rest.trim();
            match name {
                "key" => vector.key = hex::decode(rest).unwrap(),
                "value" => vector.value = hex::decode(rest).unwrap(),
                "header" => {
                    let (name, value) = rest.split_once(' ').unwrap_or((rest, ""));
                    vector.headers.push((name.to_owned(), hex::decode(value).unwrap()));
                }
                "link" => vector.link = rest.to_owned(),
                other => panic!("the page knows no {other}"),
            }
        }
        vectors.push(vector);
    }
    vectors
}

#[test]
fn links_are_those_of_the_published_vectors() {
    let vectors = vectors();
    assert!(vectors.len() >= 4);
    for vector in vectors {
        let headers: Vec<(&str, &[u8])> =
            vector.headers.iter().map(|(name, value)| (name.as_str(), value.as_slice())).collect();
        assert_eq!(hex::encode(link_parts(&vector.key, &vector.value, headers)), vector.link);
    }
}

#[test]
fn moving_a_byte_from_one_part_to_another_changes_the_link() {
    let none: [(&str, &[u8]); 0] = [];
    assert_ne!(link_parts(b"ab", b"c", none), link_parts(b"a", b"bc", none));
    assert_ne!(link_parts(b"", b"", [("a", b"b".as_slice())]), link_parts(b"", b"", [("ab", b"".as_slice())]));
    let (a, b) = (("a", b"1".as_slice()), ("b", b"2".as_slice()));
    assert_ne!(link_parts(b"", b"", [a, b]), link_parts(b"", b"", [b, a]));
}
