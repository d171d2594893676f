//! The state: what records do to it, and that only the owner's count.

use super::{
    records::{Key, Record, SchemaValue},
    state::{Applied, Origin, State},
};
use crate::{
    Subject,
    digest::Digest,
    model::{Config, Content, Level, Metadata, Mode},
};

fn origin(instance: &str) -> Origin {
    Origin { instance: Some(instance.to_owned()), ..Origin::default() }
}

fn claim(instance: &str, number: u64) -> Origin {
    Origin { claim: Some(number), ..origin(instance) }
}

fn schema(subject: &str, version: u32, id: u32, text: &str) -> Record {
    let content = Content { schema: text.to_owned(), ..Content::default() };
    let digest = Digest::of(&content);
    Record::Schema(Box::new(SchemaValue {
        subject: Subject::parse(subject),
        version,
        id,
        digest,
        content,
        deleted: false,
        written_ms: None,
    }))
}

#[test]
fn what_a_replaced_instance_writes_changes_nothing() {
    let mut state = State::default();
    assert_eq!(state.apply(0, &claim("a", 1), Record::Noop), Applied::Effective);
    assert_eq!(state.apply(1, &origin("a"), schema("s", 1, 1, "\"int\"")), Applied::Effective);
    assert_eq!(state.apply(2, &claim("b", 2), Record::Noop), Applied::Effective);
    // Both had read up to here and would hand out id 2.
    assert_eq!(state.apply(3, &origin("a"), schema("s", 2, 2, "\"long\"")), Applied::Void);
    assert_eq!(state.apply(4, &origin("b"), schema("s", 2, 2, "\"string\"")), Applied::Effective);
    assert_eq!(state.apply(5, &claim("a", 1), Record::Noop), Applied::Void);
    assert_eq!(state.apply(6, &claim("c", 2), Record::Noop), Applied::Void, "a claim must be above the last");
    assert!(state.is_owner("b"));
    let held = state.held(".", 2).expect("an id");
    assert_eq!(held.content.schema, "\"string\"");
    assert_eq!(state.intruder(), None);
    state.apply(7, &Origin::default(), schema("s", 3, 3, "\"bytes\""));
    assert_eq!(state.intruder(), Some(7));
}

#[test]
fn a_void_record_is_put_right_by_what_the_state_holds() {
    let mut state = State::default();
    state.apply(0, &claim("a", 1), Record::Noop);
    let record = schema("s", 1, 1, "\"int\"");
    state.apply(1, &origin("a"), record.clone());
    let key = Key::Schema { subject: Subject::parse("s"), version: 1 };
    assert_eq!(state.record_of(&key), record);
    let gone = Key::Schema { subject: Subject::parse("s"), version: 2 };
    assert_eq!(state.record_of(&gone), Record::SchemaGone { subject: Subject::parse("s"), version: 2 });
    assert_eq!(state.record_of(&Key::Mode { subject: None }), Record::Mode { subject: None, mode: None });
}

#[test]
fn ids_never_come_back_even_where_the_schema_is_gone() {
    let mut state = State::default();
    state.apply(0, &claim("a", 1), Record::Noop);
    state.apply(1, &origin("a"), schema("s", 1, 1, "\"int\""));
    state.apply(2, &origin("a"), Record::SchemaGone { subject: Subject::parse("s"), version: 1 });
    assert!(state.held(".", 1).is_none());
    assert_eq!((state.next_id("."), state.schemas()), (Some(2), 0));
    // After a restart on a compacted topic only the claim tells.
    let mut compacted = State::default();
    let ids = state.highest_ids();
    compacted.apply(9, &Origin { ids, ..claim("a", 1) }, Record::Noop);
    assert_eq!(compacted.next_id("."), Some(2));
}

#[test]
fn one_text_has_one_id_in_a_context_and_goes_with_its_last_version() {
    let mut state = State::default();
    state.apply(0, &Origin::default(), schema("a", 1, 1, "\"int\""));
    state.apply(1, &Origin::default(), schema("b", 1, 1, "\"int\""));
    state.apply(2, &Origin::default(), schema(":.eu:a", 1, 1, "\"int\""));
    let digest = state.version(&Subject::parse("a"), 1).expect("a version").digest;
    assert_eq!(state.places_of(digest).count(), 2);
    assert_eq!((state.id_of(".", digest), state.id_of(".eu", digest)), (Some(1), Some(1)));
    state.apply(3, &Origin::default(), Record::SchemaGone { subject: Subject::parse("a"), version: 1 });
    assert_eq!(state.id_of(".", digest), Some(1));
    state.apply(4, &Origin::default(), Record::SchemaGone { subject: Subject::parse("b"), version: 1 });
    assert!(state.held(".", 1).is_none(), "it is only remembered, for the same text");
    assert_eq!(state.places_of(digest).count(), 1);
    assert_eq!(state.contexts().collect::<Vec<_>>(), [".", ".eu"]);
}

#[test]
fn deleting_a_subject_hides_its_versions_and_clearing_takes_them() {
    let (mut state, subject) = (State::default(), Subject::parse("s"));
    state.apply(0, &Origin::default(), schema("s", 1, 1, "\"int\""));
    state.apply(1, &Origin::default(), schema("s", 2, 2, "\"long\""));
    state.apply(2, &Origin::default(), Record::DeleteSubject { subject: subject.clone(), version: 1 });
    assert_eq!(state.versions(&subject).filter(|value| value.deleted).count(), 1);
    state.apply(3, &Origin::default(), Record::DeleteSubject { subject: subject.clone(), version: 2 });
    assert!(state.latest(&subject).is_none() && state.subjects().all(|(_, present)| !present));
    state.apply(4, &Origin::default(), Record::ClearSubject { subject: subject.clone() });
    assert_eq!(state.subjects().count(), 0);
}

#[test]
fn the_narrowest_configuration_counts_member_by_member() {
    let mut state = State::default();
    let set = |subject: Option<&str>, config| Record::Config {
        subject: subject.map(Subject::parse),
        config: Some(Box::new(config)),
    };
    let level = |level| Config { compatibility_level: Some(level), ..Config::default() };
    let subject = Subject::parse(":.eu:s");
    assert_eq!(state.effective(&subject).compatibility_level, Some(Level::Backward));
    state.apply(0, &Origin::default(), set(None, level(Level::None)));
    let group = Config { compatibility_group: Some("major".to_owned()), ..level(Level::Full) };
    state.apply(1, &Origin::default(), set(Some(":.eu:"), group));
    state.apply(2, &Origin::default(), set(Some(":.eu:s"), level(Level::Forward)));
    let effective = state.effective(&subject);
    assert_eq!(effective.compatibility_level, Some(Level::Forward));
    assert_eq!(effective.compatibility_group.as_deref(), Some("major"));
    assert_eq!(state.effective(&Subject::parse(":.us:s")).compatibility_level, Some(Level::None));
    state.apply(3, &Origin::default(), Record::Mode { subject: Some(subject.clone()), mode: Some(Mode::Import) });
    assert_eq!(state.effective_mode(&subject), Mode::Import);
    state.apply(4, &Origin::default(), Record::Mode { subject: None, mode: Some(Mode::ReadonlyOverride) });
    assert_eq!(state.effective_mode(&subject), Mode::ReadonlyOverride, "an override is everybody's");
}

#[test]
fn metadata_makes_another_schema_of_the_same_text() {
    let plain = Content { schema: "\"int\"".to_owned(), ..Content::default() };
    let described = Content { metadata: Some(Metadata::default()), ..plain.clone() };
    assert_ne!(Digest::of(&plain), Digest::of(&described));
}

#[test]
fn a_schema_that_comes_back_gets_its_own_id_unless_another_has_it_by_now() {
    let mut state = State::default();
    let digest = |text: &str| Digest::of(&Content { schema: text.to_owned(), ..Content::default() });
    state.apply(0, &claim("a", 1), Record::Noop);
    state.apply(1, &origin("a"), schema("s", 1, 1, "\"int\""));
    state.apply(2, &origin("a"), Record::SchemaGone { subject: Subject::parse("s"), version: 1 });
    assert_eq!((state.id_of(".", digest("\"int\"")), state.next_id(".")), (Some(1), Some(2)));
    assert_eq!(state.id_of(".other", digest("\"int\"")), None);
    // Somebody who imports may bring the same id.
    state.apply(3, &origin("a"), schema("t", 1, 1, "\"long\""));
    assert_eq!(state.id_of(".", digest("\"int\"")), None);
}
