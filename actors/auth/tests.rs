//! The guard: roles, reloads, and whose page a page is.

pub use super::peer_guard::tests::certified;
use super::*;
use chronos::config::{Config, Flag, Sources, load};

/// A guard with settings of `[auth]`.
pub fn guard(settings: &[(&'static str, &str)]) -> Arc<Guard> {
    Guard::open(&with(settings)).unwrap()
}

pub fn with(settings: &[(&'static str, &str)]) -> Settings {
    let flag = |&(name, value): &(&'static str, &str)| Flag { flag: "-", section: "auth", name, value: value.into() };
    let flags = settings.iter().map(flag).collect();
    Settings::of(&load(&Sources { flags, ..Sources::default() }).unwrap().config)
}

fn role(guard: &Guard, authorization: Option<&str>) -> Result<Role> {
    let header = |name: &str| if name == "authorization" { authorization } else { None };
    guard.admit(header, Need::AnyRole).map(|caller| caller.role)
}

#[test]
fn without_tokens_nobody_is_asked() {
    let guard = Guard::open(&Settings::of(&Config::default())).unwrap();
    assert_eq!(role(&guard, None).unwrap(), Role::None);
    assert_eq!(role(&guard, Some("nonsense")).unwrap(), Role::None);
}

#[test]
fn where_nobody_is_asked_a_page_is_this_nodes_under_its_own_names_only() {
    let flag = |section, name, value: &str| Flag { flag: "-", section, name, value: value.into() };
    let named = |more: Vec<Flag>| {
        let address = flag("node", "address", "gateway.local:8000");
        let flags = [vec![address, flag("node", "advertise", "edge7.example:8000")], more].concat();
        Guard::open(&Settings::of(&load(&Sources { flags, ..Sources::default() }).unwrap().config)).unwrap()
    };
    let guard = named(Vec::new());
    for own in ["127.0.0.1:9000", "10.0.0.7", "[::1]:9000", "localhost:9000", "Gateway.Local:9000", "edge7.example"] {
        assert!(guard.is_own_host(own), "{own}");
    }
    for other in ["rebound.example:9000", "localhost.example", "127.0.0.1.example:9000", "", ":9000"] {
        assert!(!guard.is_own_host(other), "{other}");
    }
    assert!(named(vec![flag("auth", "token_admin", "adm")]).is_own_host("any.example:9000"), "a page has no token");
}

#[test]
fn a_token_has_its_role_and_nothing_else_has_one() {
    let guard = guard(&[("token_admin", "adm"), ("token_readonly", "ro")]);
    assert_eq!(role(&guard, Some("Bearer adm")).unwrap(), Role::Admin);
    assert_eq!(role(&guard, Some("bearer ro")).unwrap(), Role::ReadOnly);
    for wrong in [
        None,
        Some(""),
        Some("Bearer"),
        Some("Bearer "),
        Some("Bearer ad"),
        Some("Bearer admx"),
        Some("Basic adm"),
        Some("adm"),
    ] {
        let error = role(&guard, wrong).unwrap_err();
        assert_eq!(error.sqlstate(), SqlState::INVALID_AUTHORIZATION, "{wrong:?}");
        assert!(!error.to_string().contains("adm"), "{error}");
    }
    let reader = |name: &str| (name == "authorization").then_some("Bearer ro");
    let refused = guard.admit(reader, Need::Admin).unwrap_err();
    assert_eq!(refused.sqlstate(), SqlState::INSUFFICIENT_PRIVILEGE);
}

#[test]
fn a_reload_takes_all_or_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("token");
    std::fs::write(&file, "first\n").unwrap();
    let settings = with(&[("token_admin_file", file.to_str().unwrap()), ("token_readonly", "ro")]);
    let guard = Guard::open(&settings).unwrap();
    std::fs::write(&file, "second\n").unwrap();
    assert!(role(&guard, Some("Bearer first")).is_ok(), "not before it is asked for");
    guard.reload(&settings).unwrap();
    assert!(role(&guard, Some("Bearer first")).is_err());
    assert_eq!(role(&guard, Some("Bearer second")).unwrap(), Role::Admin);
    for wrong in ["", "\u{1}", "ro"] {
        std::fs::write(&file, wrong).unwrap();
        guard.reload(&settings).unwrap_err();
    }
    std::fs::remove_file(&file).unwrap();
    assert!(guard.reload(&settings).unwrap_err().to_string().contains("auth.token_admin_file"));
    assert_eq!(role(&guard, Some("Bearer second")).unwrap(), Role::Admin);
}

#[test]
fn a_file_of_the_groups_tokens_is_rolled_line_by_line() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("token");
    let settings = with(&[("cluster_token_file", file.to_str().unwrap()), ("token_admin", "adm")]);
    std::fs::write(&file, "old\r\nnew\n").unwrap();
    let guard = Guard::open(&settings).unwrap();
    let admits = |token: &str| guard.admit(|name| (name == CLUSTER_TOKEN).then_some(token), Need::Peer).is_ok();
    let shown = || guard.rules.load().tokens.shown_to_peers().unwrap().reveal().to_owned();
    assert!(admits("old") && admits("new") && !admits("newer") && shown() == "old");
    std::fs::write(&file, "new\nold\n").unwrap();
    assert!(guard.reload(&settings).unwrap().contains("auth.cluster_token set, 2 accepted"));
    assert!(admits("old") && shown() == "new");
    std::fs::write(&file, "new\n").unwrap();
    guard.reload(&settings).unwrap();
    assert!(!admits("old") && admits("new"));
    // An operator's token is no node's; and more lines than count are a mistake.
    for wrong in ["new\nadm\n", "new\n\nold\n", "1\n2\n3\n4\n5\n"] {
        std::fs::write(&file, wrong).unwrap();
        let told = guard.reload(&settings).unwrap_err().to_string();
        assert!(told.contains("auth.cluster_token"), "{told}");
    }
    assert!(admits("new") && !admits("adm"));
    let token = directory.path().join("admin");
    let settings = with(&[("token_admin_file", token.to_str().unwrap())]);
    for (text, says) in [("one\ntwo\n", "holds 2 lines: one"), ("1\n2\n3\n4\n5\n", "holds 5 lines: one")] {
        std::fs::write(&token, text).unwrap();
        let told = Guard::open(&settings).err().unwrap().to_string();
        assert!(told.contains(says), "{told}");
    }
}

#[test]
fn a_user_is_one_visible_word() {
    let header = |name: &str| (name == USER).then_some("eve role=Admin sql=x");
    let caller = guard(&[]).admit(header, Need::AnyRole).unwrap();
    assert_eq!(caller.user(), "eve_role=Admin_sql=x");
    assert_eq!(one_word(&"x".repeat(100)).len(), USER_CHARS_MAX);
}
