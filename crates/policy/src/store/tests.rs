//! What is denied stays denied, and a bad set changes nothing.

use std::fs;

use cairn_contract::{Direction, Target};

use super::*;

fn question(tool: &str) -> Question {
    Question {
        principal: "ada".to_owned(),
        action: "tools/call".to_owned(),
        direction: Direction::ToServer,
        server: "orders".to_owned(),
        target: Target::tool(tool),
        arguments: None,
        context: serde_json::Map::new(),
    }
}

fn store(text: &str) -> (tempfile::TempDir, PolicyStore) {
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("a.cedar"), text).expect("written");
    let store = PolicyStore::open(Some(folder.path().to_owned())).expect("it compiles");
    (folder, store)
}

/// A change counts when two looks find the same.
fn changed(store: &PolicyStore) -> bool {
    assert!(!store.changed(), "one look is not enough");
    store.changed()
}

#[test]
fn without_files_everything_is_permitted_and_says_so() {
    let store = PolicyStore::open(None).expect("no files");
    let verdict = store.decide(&question("refund_order"));
    assert!(verdict.is_permit());
    assert_eq!(verdict.policy_version, "observe");
}

#[test]
fn with_files_what_no_policy_permits_is_denied() {
    let (_folder, store) = store(r#"permit(principal, action, resource == Tool::"orders/get_order");"#);
    assert!(store.decide(&question("get_order")).is_permit());
    assert!(!store.decide(&question("delete_order")).is_permit());
}

#[test]
fn a_forbid_wins_and_is_named() {
    let (_folder, store) = store(
        "permit(principal, action, resource);\n@id(\"never\")\nforbid(principal, action, resource == Tool::\"orders/delete_order\");",
    );
    let verdict = store.decide(&question("delete_order"));
    assert!(!verdict.is_permit());
    assert_eq!(verdict.determining, ["never"]);
    assert!(store.decide(&question("get_order")).is_permit());
}

#[test]
fn an_approval_is_demanded_by_annotation() {
    let (_folder, store) = store("@obligation(\"approval\")\npermit(principal == User::\"ada\", action, resource);");
    let verdict = store.decide(&question("get_order"));
    assert!(verdict.is_permit());
    assert!(matches!(verdict.obligations.as_slice(), [crate::Obligation::Approval { .. }]));
}

#[test]
fn a_set_that_does_not_compile_changes_nothing() {
    let (folder, store) = store("forbid(principal, action, resource);");
    let version = store.current_version();
    fs::write(folder.path().join("a.cedar"), "permit(principal, action, resource").expect("written");
    assert!(changed(&store));
    assert!(store.reload("test").is_err());
    assert_eq!(store.current_version(), version);
    assert!(!store.decide(&question("get_order")).is_permit());
}

/// The beginning of this set compiles, and lacks the forbid at its end.
#[test]
fn a_file_that_is_written_slowly_opens_no_hole() {
    let (folder, store) = store("permit(principal, action, resource);\nforbid(principal, action, resource is Tool);");
    let version = store.current_version();
    let whole = "permit(principal, action, resource);\n@id(\"still\") forbid(principal, action, resource is Tool);";
    for end in (1..whole.len()).chain([whole.len()]) {
        fs::write(folder.path().join("a.cedar"), &whole[..end]).expect("written");
        assert!(!store.changed(), "{}", &whole[..end]);
        assert_eq!(store.current_version(), version);
    }
    assert!(store.changed());
    store.reload("test").expect("the whole compiles");
    let verdict = store.decide(&question("get_order"));
    assert_eq!((verdict.is_permit(), verdict.determining), (false, vec!["still".to_owned()]));
}

#[test]
fn a_set_with_a_name_that_nobody_knows_changes_nothing_and_is_told_with_file_and_line() {
    let (folder, store) = store("forbid(principal, action, resource);");
    let version = store.current_version();
    for (text, said) in [
        (
            "permit(principal, action, resource);\n\npermit(principal, action == Action::\"tools/cal\", resource);",
            "a.cedar:3: policy a.cedar:1: ",
        ),
        ("// a\npermit(principal, action, resource)\nwhen { context.servr == \"x\" };", "a.cedar:3: "),
        ("@obligaton(\"approval\") permit(principal, action, resource);", "did you mean obligation?"),
        ("@budget(\"much\") permit(principal, action, resource);", "5000/1d"),
    ] {
        fs::write(folder.path().join("a.cedar"), text).expect("written");
        let error = store.reload("test").expect_err("it does not compile").to_string();
        assert!(error.contains(said), "{text}: {error}");
        assert_eq!(store.current_version(), version);
        assert!(!store.decide(&question("get_order")).is_permit());
    }
}

#[test]
fn everything_that_can_change_a_decision_changes_the_version() {
    let policy = "permit(principal in Group::\"g\", action, resource);";
    let (folder, store) = store(policy);
    let mut versions = std::collections::BTreeSet::from([store.current_version()]);
    assert!(!store.decide(&question("get_order")).is_permit());
    for (file, text, changes) in [
        ("a.cedar", "// a comment\npermit ( principal in Group::\"g\", action, resource ) ;", false),
        (
            "entities.json",
            r#"[{"uid": {"type": "User", "id": "ada"}, "attrs": {}, "parents": [{"type": "Group", "id": "g"}]}]"#,
            true,
        ),
        ("actions.json", r#"{"to_server": ["acme/run"]}"#, true),
        ("a.cedar", "permit(principal in Group::\"h\", action, resource);", true),
    ] {
        fs::write(folder.path().join(file), text).expect("written");
        store.reload("test").expect("it compiles");
        assert_eq!(versions.insert(store.current_version()), changes, "{file}: {text}");
        let in_group = file != "a.cedar" && store.decide(&question("get_order")).is_permit();
        assert_eq!(in_group, file != "a.cedar", "{file}");
    }
    fs::write(folder.path().join("entities.json"), "[{\"uid\": 7}]").expect("written");
    assert!(store.reload("test").expect_err("no entity").to_string().contains("entities.json"));
}

#[test]
fn a_default_deny_names_the_permit_that_came_nearest_and_what_failed() {
    let (_folder, store) = store(
        "@id(\"far\") permit(principal == User::\"bob\", action == Action::\"ping\", resource);\n\
         @id(\"near\") permit(principal, action == Action::\"tools/call\", resource in Server::\"orders\")\n\
         when { context has arguments && resource.name == \"get_order\" && context.arguments has n && context.arguments.n < 3 };",
    );
    let mut asked = question("get_order");
    asked.arguments = Some(serde_json::json!({ "n": 7 }));
    let verdict = store.decide(&asked);
    let nearest = verdict.nearest.expect("one came near");
    assert_eq!((nearest.policy.as_str(), nearest.failing), ("near", 1));
    assert!(nearest.failed.contains("context") && nearest.failed.contains("< 3"), "{}", nearest.failed);
    asked.action = "ping".to_owned();
    asked.target = Target::None;
    let nearest = store.decide(&asked).nearest.expect("one came near");
    assert_eq!((nearest.policy.as_str(), nearest.failed.as_str()), ("far", "principal == User::\"bob\""));
    asked.principal = "bob".to_owned();
    let verdict = store.decide(&asked);
    assert!(verdict.is_permit() && verdict.nearest.is_none());
}

#[test]
fn the_nearest_permit_is_found_among_many() {
    let far = |i: usize| {
        format!("@id(\"a{i}\") permit(principal == User::\"u{i}\", action == Action::\"ping\", resource);\n")
    };
    let near = "@id(\"near\") permit(principal == User::\"bob\", action == Action::\"tools/call\", resource);\n";
    let (_folder, store) = store(&(0..40).map(far).chain([near.to_owned()]).collect::<String>());
    for tool in ["get_order", "get_order", "refund_order"] {
        let nearest = store.decide(&question(tool)).nearest.expect("one came near");
        assert_eq!((nearest.policy.as_str(), nearest.failing), ("near", 1));
        assert_eq!(nearest.failed, "principal == User::\"bob\"");
    }
}

#[test]
fn the_obligations_of_all_permits_hold_and_the_shortest_time() {
    let (_folder, store) = store(
        "@id(\"a\") @obligation(\"approval\") @expires(\"10m\") permit(principal, action, resource);\n\
         @id(\"b\") @obligation(\"approval\") @expires(\"90s\") permit(principal, action, resource is Tool);\n\
         @id(\"c\") @durability(\"strict\") permit(principal, action, resource);",
    );
    let expires = Some(std::time::Duration::from_secs(90));
    let need = |id: &str| crate::ApprovalNeed { policy: id.to_owned(), approvers: Vec::new(), quorum: 1 };
    let approval = crate::Obligation::Approval { needs: vec![need("a"), need("b")], expires };
    let durability = crate::Obligation::Durability { policies: vec!["c".to_owned()] };
    assert_eq!(store.decide(&question("get_order")).obligations, [approval, durability]);
}

#[test]
fn the_strictest_of_all_permits_counts() {
    let (_folder, store) = store(
        "@id(\"a\") @mask(\"arguments/n\") @freshness(\"90s\") @rewrite(\"set /n = 1\") @screen_output(\"flag\")
         permit(principal, action == Action::\"tools/call\", resource);
         @id(\"b\") @mask(\"result=digest\") @freshness(\"fresh\") @rewrite(\"redact\") @screen_output(\"redact\")
         permit(principal, action == Action::\"tools/call\", resource);
         @id(\"no\") @mask(\"none\") forbid(principal, action == Action::\"ping\", resource);
         @id(\"c\") @rewrite(\"remove /n\") permit(principal, action == Action::\"tools/call\", resource == Tool::\"orders/c\");",
    );
    let both = || vec!["a".to_owned(), "b".to_owned()];
    let obligations = store.decide(&question("get_order")).obligations;
    let [crate::Obligation::Freshness { policies, demand }, mask, rewrite, output] = obligations.as_slice() else {
        panic!("{obligations:?}");
    };
    assert_eq!((policies, demand.age_max), (&both(), Some(std::time::Duration::from_secs(90))));
    let crate::Obligation::Mask { policies, masking } = mask else { panic!("{mask:?}") };
    assert_eq!((policies, masking.result), (&both(), crate::KeptAs::Digest));
    assert!(masking.argument_fields.contains("/n"));
    let crate::Obligation::Rewrite { rewriting } = rewrite else { panic!("{rewrite:?}") };
    assert_eq!(rewriting.policies(), both());
    assert_eq!(output, &crate::Obligation::ScreenOutput { policies: both(), mode: crate::OutputMode::Redact });

    // What is denied is recorded as little as it is permitted to be, and nobody guesses which rewriting is meant.
    let mut ping = question("x");
    (ping.action, ping.target) = ("ping".to_owned(), Target::None);
    let denied = store.decide(&ping);
    assert!(!denied.is_permit());
    assert!(
        matches!(denied.obligations.as_slice(), [crate::Obligation::Mask { masking, .. }] if masking.arguments == crate::KeptAs::None)
    );
    let contradicted = store.decide(&question("c"));
    assert!(!contradicted.is_permit() && contradicted.determining == ["a", "c"], "{contradicted:?}");
    assert!(contradicted.errors[0].contains("contradicts that of a"), "{:?}", contradicted.errors);
    assert!(matches!(contradicted.obligations.as_slice(), [crate::Obligation::Mask { .. }]));
}

const FORBIDS: &str = "@id(\"no\") forbid(principal, action, resource);";
const PERMITS: &str = "@id(\"yes\") permit(principal, action, resource);";

fn with_shadow() -> (tempfile::TempDir, PolicyStore) {
    let folder = tempfile::tempdir().expect("a folder");
    fs::create_dir(folder.path().join("shadow")).expect("a folder");
    fs::write(folder.path().join("a.cedar"), FORBIDS).expect("written");
    fs::write(folder.path().join("shadow/b.cedar"), PERMITS).expect("written");
    let store = PolicyStore::open(Some(folder.path().to_owned())).expect("it compiles");
    (folder, store)
}

#[test]
fn a_shadow_is_asked_and_decides_nothing() {
    let (folder, store) = with_shadow();
    let verdict = store.decide(&question("get_order"));
    assert!(!verdict.is_permit());
    let shadow = verdict.shadow.expect("it was asked");
    assert_eq!((shadow.permit, shadow.differs, Some(shadow.policy_version)), (true, true, store.shadow_version()));
    fs::write(folder.path().join("shadow/b.cedar"), FORBIDS).expect("written");
    assert!(changed(&store));
    assert_eq!(store.reload("test").expect("the live set is good"), Change::Unchanged);
    assert!(store.reload_shadow("test").expect("it compiles").is_some());
    assert!(!store.decide(&question("get_order")).shadow.expect("it was asked").differs);
    fs::write(folder.path().join("shadow/b.cedar"), "permit(").expect("written");
    store.reload("test").expect("the live set is good");
    assert!(store.reload_shadow("test").is_err());
    assert!(store.decide(&question("get_order")).shadow.is_none());
}

#[test]
fn a_shadow_is_promoted_and_rolled_back_whole() {
    let (folder, store) = with_shadow();
    let (old, tried) = (store.current_version(), store.shadow_version().expect("a shadow"));
    store.promote("grace").expect("it compiles");
    assert_eq!((store.current_version(), store.shadow_version()), (tried.clone(), None));
    assert!(store.decide(&question("get_order")).is_permit() && !store.changed() && !store.changed());
    assert!(!folder.path().join("a.cedar").exists() && folder.path().join("b.cedar").exists());
    assert!(matches!(store.promote("grace"), Err(PolicyError::Nothing { .. })));
    store.rollback("grace").expect("it decided before");
    assert_eq!((store.current_version(), store.shadow_version()), (old.clone(), Some(tried)));
    assert!(!store.decide(&question("get_order")).is_permit());
    let again = PolicyStore::open(Some(folder.path().to_owned())).expect("it compiles");
    assert_eq!((again.current_version(), again.shadow_version()), (old, store.shadow_version()));
}

/// From the journal's rename on the new set is what the folder says, however few of its files have followed.
#[test]
fn a_crash_in_the_middle_of_a_promotion_leaves_the_new_set_and_before_it_the_old() {
    let (folder, store) = with_shadow();
    let (old, tried) = (store.current_version(), store.shadow_version().expect("a shadow"));
    drop(store);
    let texts = |name: &str, text: &str| Texts::from([(name.to_owned(), text.to_owned())]);
    let journal = Journal::new(texts("b.cedar", PERMITS), Texts::new(), texts("a.cedar", FORBIDS));
    let path = |name: &str| folder.path().join(name);
    let version = || PolicyStore::open(Some(folder.path().to_owned())).expect("it compiles").current_version();
    fs::write(path(".journal.json.new"), "{\"format\": 1, \"live\": {\"b.ce").expect("written");
    assert_eq!(version(), old, "a journal that was not renamed is none");
    for gone in [&[][..], &["a.cedar"], &["shadow/b.cedar"], &["a.cedar", "shadow/b.cedar"]] {
        fs::write(path("a.cedar"), FORBIDS).expect("written");
        let _ = fs::remove_file(path("b.cedar"));
        fs::write(path("shadow/b.cedar"), PERMITS).expect("written");
        journal.commit(folder.path()).expect("written");
        for name in gone {
            fs::remove_file(path(name)).expect("it was there");
        }
        assert_eq!(version(), tried, "{gone:?}");
        assert!(!path(".journal.json").exists() && !path("a.cedar").exists() && path("b.cedar").exists());
        assert!(path(".previous/a.cedar").exists());
    }
}

#[test]
fn a_shadow_that_does_not_compile_is_not_promoted() {
    let (folder, store) = with_shadow();
    let old = store.current_version();
    fs::write(folder.path().join("shadow/b.cedar"), "permit(principal, action == Action::\"x\", resource);")
        .expect("written");
    assert!(matches!(store.promote("grace"), Err(PolicyError::Invalid { .. })));
    assert_eq!(store.current_version(), old);
    assert!(folder.path().join("a.cedar").exists() && !folder.path().join(".journal.json").exists());
}
