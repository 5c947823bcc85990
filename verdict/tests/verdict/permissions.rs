//! Permission documents: their meaning and their errors.

use core::net::IpAddr;

use verdict::permission::{
    AccessDecision, AccessRequest, MAX_COMPILED_BYTES, MAX_DOCUMENT_BYTES, Permissions,
};

/// 2023-02-01T00:00:00Z, in seconds since the Unix epoch.
pub(crate) const NOW: u64 = 1_675_209_600;

pub(crate) const REQUEST: AccessRequest<'_> = AccessRequest {
    api: "Sim:getSim",
    user_name: Some("alice"),
    client: Some(IpAddr::V4(core::net::Ipv4Addr::new(10, 0, 0, 9))),
    now: NOW,
    variables: &[("sim_id", "89811000"), ("user_name", "alice")],
};

pub(crate) fn parse(json: &str) -> Permissions {
    let permissions =
        Permissions::from_json(json.as_bytes()).unwrap_or_else(|error| panic!("{json}: {error}"));
    assert_eq!(Permissions::from_bytes(permissions.as_bytes().to_vec()).as_ref(), Ok(&permissions));
    permissions
}

fn error(json: &str) -> String {
    Permissions::from_json(json.as_bytes()).expect_err(json).to_string()
}

fn allow_if(condition: &str) -> String {
    let condition = serde_json::Value::from(condition);
    format!(r#"{{"statements":[{{"effect":"allow","api":"*","condition":{condition}}}]}}"#)
}

fn deny_if(condition: &str) -> String {
    let condition = serde_json::Value::from(condition);
    format!(
        r#"{{"statements":[{{"effect":"allow","api":"*"}},{{"effect":"deny","api":"*","condition":{condition}}}]}}"#
    )
}

/// Returns the value of a condition, or `None` if it is unknown. Checks that `allow` and `deny` agree.
fn eval(condition: &str, request: &AccessRequest<'_>) -> Option<bool> {
    let allow = parse(&allow_if(condition)).decide(request);
    let deny = parse(&deny_if(condition)).decide(request);
    match (allow, deny) {
        (AccessDecision::Allowed, AccessDecision::Denied) => Some(true),
        (AccessDecision::NotAllowed, AccessDecision::Allowed) => Some(false),
        (AccessDecision::NotAllowed, AccessDecision::Denied) => None,
        other => panic!("{condition}: {other:?}"),
    }
}

/// The examples of Soracom's documentation.
#[test]
fn soracom_examples() {
    let example = parse(
        r#"{"statements":[{"effect":"allow","api":["Sim:listSims","Group:*"],
            "condition":"currentDate >= date(2023, 02, 01) and ipAddress('10.0.0.0/24')"}]}"#,
    );
    let decide = |api, now, client: &str| {
        example.decide(&AccessRequest { api, now, client: client.parse().ok(), ..REQUEST })
    };
    assert_eq!(decide("Sim:listSims", NOW, "10.0.0.9"), AccessDecision::Allowed);
    assert_eq!(decide("Group:deleteGroup", NOW, "10.0.0.9"), AccessDecision::Allowed);
    assert_eq!(decide("Sim:getSim", NOW, "10.0.0.9"), AccessDecision::NotAllowed);
    assert_eq!(decide("Sim:listSims", NOW - 1, "10.0.0.9"), AccessDecision::NotAllowed);
    assert_eq!(decide("Sim:listSims", NOW, "10.0.1.9"), AccessDecision::NotAllowed);
    assert_eq!(decide("Sim:listSims", NOW, ""), AccessDecision::NotAllowed);
    // From 2016: a list with a prefix pattern, and a network with host bits.
    let older = parse(
        r#"{"statements":[{"effect":"allow","api":["Subscriber:list*","Group:*"],
            "condition":"currentDate >= date(2016, 02, 01) and ipAddress('10.0.0.1/24')"}]}"#,
    );
    let listing = AccessRequest { api: "Subscriber:listSubscribers", ..REQUEST };
    assert_eq!(older.decide(&listing), AccessDecision::Allowed);
    assert_eq!(
        older.decide(&AccessRequest { api: "Subscriber:getSubscriber", ..REQUEST }),
        AccessDecision::NotAllowed
    );

    let own_password = parse(
        r#"{"statements":[{"effect":"allow","api":"User:updateUserPassword",
            "condition":"pathVariable('user_name') == samUserName"}]}"#,
    );
    let request = AccessRequest { api: "User:updateUserPassword", ..REQUEST };
    assert_eq!(own_password.decide(&request), AccessDecision::Allowed);
    assert_eq!(
        own_password.decide(&AccessRequest { user_name: Some("bob"), ..request }),
        AccessDecision::NotAllowed
    );
    assert_eq!(
        own_password.decide(&AccessRequest { user_name: None, ..request }),
        AccessDecision::NotAllowed
    );

    let all_but_support = parse(
        r#"{"statements":[{"api":"*","effect":"allow"},{"api":["Operator:generateSupportToken"],"effect":"deny"}]}"#,
    );
    assert_eq!(all_but_support.decide(&REQUEST), AccessDecision::Allowed);
    let support = AccessRequest { api: "Operator:generateSupportToken", ..REQUEST };
    assert_eq!(all_but_support.decide(&support), AccessDecision::Denied);
}

/// SAM default permissions page: a deny always takes precedence, and both of these are refused.
#[test]
fn deny_overrides_allow_from_any_source() {
    let allow = parse(r#"{"statements":[{"effect":"allow","api":"Sim:getSim"}]}"#);
    let deny = parse(r#"{"statements":[{"effect":"deny","api":"Sim:getSim"}]}"#);
    let deny_all = parse(r#"{"statements":[{"effect":"deny","api":"*"}]}"#);
    let other = parse(r#"{"statements":[{"effect":"deny","api":"Sim:list*"}]}"#);
    let nothing = parse(r#"{"statements":[]}"#);
    for (parts, expected) in [
        (&[][..], AccessDecision::NotAllowed),
        (&[&nothing][..], AccessDecision::NotAllowed),
        (&[&allow], AccessDecision::Allowed),
        (&[&nothing, &allow, &other], AccessDecision::Allowed),
        (&[&allow, &deny], AccessDecision::Denied),
        (&[&deny, &allow], AccessDecision::Denied),
        (&[&allow, &deny_all], AccessDecision::Denied),
        (&[&deny, &allow, &allow], AccessDecision::Denied),
        (&[&deny], AccessDecision::Denied),
        (&[&other], AccessDecision::NotAllowed),
    ] {
        let merged = Permissions::concat(parts.iter().copied()).unwrap();
        assert_eq!(merged.decide(&REQUEST), expected);
        assert_eq!(Permissions::from_bytes(merged.as_bytes().to_vec()), Ok(merged));
    }
    let large = parse(&format!(
        r#"{{"statements":[{{"effect":"allow","api":["{}"]}}]}}"#,
        ["Sim:getSim"; 1000].join("\",\"")
    ));
    assert!(Permissions::concat([&large]).is_some());
    assert!(Permissions::concat([&large, &large]).is_none());
}

#[test]
fn conditions_evaluate_as_documented() {
    for (condition, expected) in [
        ("'a' == 'a'", Some(true)),
        ("'a' == 'A'", Some(false)),
        ("'a' != 'b'", Some(true)),
        ("'a' < 'b' and 'b' > 'a' and 'a' <= 'a' and 'a' >= 'a'", Some(true)),
        ("'10' < '9'", Some(true)),
        ("'' < 'a'", Some(true)),
        ("'and' == 'and'", Some(true)),
        ("'\u{3042}' == '\u{3042}'", Some(true)),
        ("007 == 7", Some(true)),
        ("10 > 9", Some(true)),
        ("18446744073709551615 >= 0", Some(true)),
        ("date(2023, 02, 01) == date(2023,2,1)", Some(true)),
        ("date(02023, 002, 01) == currentDate", Some(true)),
        ("currentDate == date(2023, 02, 01)", Some(true)),
        ("currentDate <= date(2023, 01, 31)", Some(false)),
        ("currentDate < date(2023, 02, 02) and currentDate > date(2023, 01, 31)", Some(true)),
        ("currentDate == currentDate", Some(true)),
        ("samUserName == 'alice'", Some(true)),
        ("samUserName == pathVariable('user_name')", Some(true)),
        ("pathVariable('sim_id') >= '898'", Some(true)),
        ("ipAddress('10.0.0.0/24')", Some(true)),
        ("ipAddress('10.0.0.9')", Some(true)),
        ("ipAddress('10.0.1.0/24')", Some(false)),
        ("ipAddress('::/0')", Some(false)),
        ("not ipAddress('::/0')", Some(true)),
        ("not not ipAddress('::/0')", Some(false)),
        ("not 'a' == 'b'", Some(true)),
        // `not` binds more strongly than `and`, and `and` more strongly than `or`.
        ("not 'a' == 'b' and 'a' == 'b'", Some(false)),
        ("'a' == 'a' or 'a' == 'b' and 'a' == 'b'", Some(true)),
        ("('a' == 'a' or 'a' == 'b') and 'a' == 'b'", Some(false)),
        ("not ('a' == 'a' or 'a' == 'b')", Some(false)),
        ("((('a'=='a')))", Some(true)),
        ("\t'a'\n==\r'a' ", Some(true)),
        // Unknown values are neither true nor false.
        ("pathVariable('absent') == 'a'", None),
        ("pathVariable('absent') != 'a'", None),
        ("not pathVariable('absent') == 'a'", None),
        ("not (pathVariable('absent') != 'a')", None),
        ("pathVariable('absent') == pathVariable('absent')", None),
        ("pathVariable('absent') == 'a' or 'a' == 'a'", Some(true)),
        ("pathVariable('absent') == 'a' or 'a' == 'b'", None),
        ("pathVariable('absent') == 'a' and 'a' == 'a'", None),
        ("pathVariable('absent') == 'a' and 'a' == 'b'", Some(false)),
        ("pathVariable('SIM_ID') == '89811000'", None),
    ] {
        assert_eq!(eval(condition, &REQUEST), expected, "{condition}");
    }
    let root = AccessRequest { user_name: None, client: None, ..REQUEST };
    for condition in ["samUserName == 'alice'", "samUserName != 'alice'", "not samUserName == 'alice'"] {
        assert_eq!(eval(condition, &root), None, "{condition}");
    }
    for condition in ["ipAddress('0.0.0.0/0')", "not ipAddress('0.0.0.0/0')"] {
        assert_eq!(eval(condition, &root), None, "{condition}");
    }
}

#[test]
fn invalid_conditions_are_refused_with_their_column() {
    for (condition, column, why) in [
        ("", 1, "unexpected end"),
        ("   ", 4, "unexpected end"),
        ("foo", 1, "unknown name `foo`"),
        ("currentTime >= 5", 1, "unknown name `currentTime`"),
        ("'a' == samUsername", 8, "unknown name `samUsername`"),
        ("now() == 5", 1, "unknown name `now`"),
        ("true", 1, "unknown name `true`"),
        ("'a' == 'a' AND 'b' == 'b'", 12, "expected `and`"),
        ("'a' == 'a' && 'b' == 'b'", 12, "unexpected `&`"),
        ("!ipAddress('::1')", 1, "unexpected `!`"),
        ("'a' = 'a'", 5, "unexpected `=`"),
        ("'a' =~ 'a'", 5, "unexpected `=`"),
        ("'a'", 4, "expected a comparison"),
        ("'a' ==", 7, "unexpected end"),
        ("'a' == and", 8, "expected a value"),
        ("and 'a' == 'a'", 1, "expected a value"),
        ("'a' == 'a' and", 15, "unexpected end"),
        ("'a' == 'a' or or 'a' == 'a'", 15, "expected a value"),
        ("'a' == 'a' 'b'", 12, "expected `and`"),
        ("'a' == 'b' == 'c'", 12, "expected `and`"),
        ("('a' == 'a'", 1, "unclosed"),
        ("'a' == 'a')", 11, "unmatched closing parenthesis"),
        ("()", 2, "expected a value"),
        ("('a') == 'a'", 5, "expected a comparison"),
        ("'a' == ('a')", 8, "expected a value"),
        ("'a == b", 1, "unclosed"),
        ("\"a\" == 'a'", 1, "unexpected"),
        (r"'a\'' == 'a'", 1, "backslashes"),
        ("'a\u{0}' == 'a'", 1, "control character"),
        ("5x == 5", 1, "not a number"),
        ("0x5 == 5", 1, "not a number"),
        ("-5 == 5", 1, "unexpected `-`"),
        ("5.5 == 5", 2, "unexpected `.`"),
        ("18446744073709551616 == 5", 1, "not a number"),
        ("'5' == 5", 1, "cannot compare a text with a number"),
        ("currentDate >= '2023-02-01'", 1, "cannot compare a date with a text"),
        ("currentDate >= 20230201", 1, "cannot compare a date with a number"),
        ("pathVariable('a') < 5", 1, "cannot compare a text with a number"),
        ("ipAddress('10.0.0.0/24') == 'a'", 26, "expected `and`"),
        ("'a' == ipAddress('10.0.0.0/24')", 8, "a boolean"),
        ("ipAddress", 10, "in parentheses"),
        ("ipAddress()", 11, "takes one text"),
        ("ipAddress(10)", 11, "takes one text"),
        ("ipAddress('10.0.0.0/24', '10.0.1.0/24')", 24, "in parentheses"),
        ("ipAddress('10.0.0.0/33')", 11, "not a valid prefix length"),
        ("ipAddress('10.0.0/24')", 11, "not an IP address"),
        ("ipAddress('::ffff:10.0.0.0/120')", 11, "write it as an IPv4 address"),
        ("pathVariable('') == 'a'", 14, "not the name of a path variable"),
        ("pathVariable('{sim_id}') == 'a'", 14, "not the name of a path variable"),
        ("pathVariable(sim_id) == 'a'", 14, "takes one text"),
        ("date(2023, 02) == currentDate", 14, "year, month and day"),
        ("date(2023, 02, 01, 12) == currentDate", 18, "year, month and day"),
        ("date('2023-02-01') == currentDate", 6, "year, month and day"),
        ("currentDate == date(2023, 02, 29)", 16, "no such date"),
        ("currentDate == date(1969, 12, 31)", 16, "no such date"),
        ("'\u{3042}\u{3044}' == foo", 9, "unknown name `foo`"),
    ] {
        let found = Permissions::from_json(allow_if(condition).as_bytes()).expect_err(condition);
        assert_eq!((found.statement(), found.column()), (Some(1), Some(column)), "{condition}: {found}");
        assert!(
            found.to_string().starts_with(&format!("statement 1, condition, column {column}: ")),
            "{found}"
        );
        assert!(found.to_string().contains(why), "{condition}: {found}");
    }
}

#[test]
fn depth_and_size_are_bounded() {
    let nested = |depth: usize| format!("{}'a' == 'a'{}", "(".repeat(depth), ")".repeat(depth));
    assert_eq!(eval(&nested(64), &REQUEST), Some(true));
    for deep in [nested(65), nested(900), format!("{}'a' == 'a'", "not ".repeat(65))] {
        assert!(error(&allow_if(&deep)).contains("nested too deeply"), "{deep}");
    }
    // Each `or (` needs one entry on the evaluation stack.
    let waiting =
        |depth: usize| format!("{}'a' == 'b'{}", "'a' == 'b' or (".repeat(depth), ")".repeat(depth));
    assert_eq!(eval(&waiting(31), &REQUEST), Some(false));
    assert!(error(&allow_if(&waiting(32))).contains("nested too deeply"));
    // A long condition without nesting.
    let long = vec!["'a' == 'b'"; 140].join(" or ");
    assert_eq!(eval(&long, &REQUEST), Some(false));
    assert!(error(&allow_if(&vec!["'a' == 'b'"; 150].join(" or "))).contains("longer than"));
    let document = format!(r#"{{"statements":[{}]}}"#, " ".repeat(MAX_DOCUMENT_BYTES));
    assert!(error(&document).contains("longer than"));
    assert!(error(&format!("{{\"statements\":{}", "[".repeat(20_000))).contains("nested too deeply"));
}

#[test]
fn invalid_documents_are_refused_with_their_location() {
    let second =
        |statement: &str| format!(r#"{{"statements":[{{"effect":"allow","api":"*"}},{statement}]}}"#);
    for (document, place) in [
        (String::new(), "EOF while parsing a value at line 1 column 0"),
        ("[]".into(), "expected an object, found an array"),
        ("[[]]".into(), "expected an object, found an array"),
        ("{}".into(), "missing field `statements`"),
        (r#"{"statements":[]} x"#.into(), "trailing characters at line 1 column 19"),
        (r#"{"statements":[],"statements":[]}"#.into(), "duplicate member `statements` at line 1"),
        (r#"{"statements":[],"version":1}"#.into(), "unknown field `version`"),
        (r#"{"statements":{}}"#.into(), "expected an array, found an object"),
        (second("5"), "statement 2: expected an object, found a number"),
        (second(r#"["allow","*"]"#), "statement 2: expected an object, found an array"),
        (second(r#"{"api":"*"}"#), "statement 2: missing field `effect`"),
        (second(r#"{"effect":"allow"}"#), "statement 2: missing field `api`"),
        (second(r#"{"effect":"Allow","api":"*"}"#), "statement 2, effect: must be one of `deny`, `allow`"),
        (second(r#"{"effect":null,"api":"*"}"#), "statement 2, effect: "),
        (second(r#"{"effect":"deny","effect":"allow","api":"*"}"#), "duplicate member `effect` at line 1"),
        (second(r#"{"effect":"deny","api":5}"#), "statement 2, api: expected "),
        (second(r#"{"effect":"deny","api":[]}"#), "statement 2, api: there must be at least one"),
        (
            second(r#"{"effect":"deny","api":["*",5]}"#),
            "statement 2, api 2: expected a string, found a number",
        ),
        (second(r#"{"effect":"deny","api":["*","Sim"]}"#), "statement 2, api 2: `Sim` is not"),
        (second(r#"{"effect":"deny","api":"*Sim"}"#), "statement 2, api: `*Sim` is not"),
        (
            second(r#"{"effect":"deny","api":"*","condition":null}"#),
            "statement 2, condition: expected a string, found null",
        ),
        (
            second(r#"{"effect":"deny","api":"*","condition":true}"#),
            "statement 2, condition: expected a string, found true or false",
        ),
        (second(r#"{"effect":"deny","api":"*","resource":"x"}"#), "statement 2, `resource`: unknown field"),
        (
            second(r#"{"effect":"deny","api":"*","condition":"'a' == b"}"#),
            "statement 2, condition, column 8: unknown name `b`",
        ),
    ] {
        let found = error(&document);
        assert!(
            found.contains(place) && (place.starts_with("statement") == found.starts_with("statement")),
            "{document}: {found}"
        );
        if place.starts_with("statement") {
            assert!(found.starts_with(place), "{document}: {found}");
        }
    }
}

#[test]
fn compiled_statements_have_at_most_the_maximum_length() {
    let allowing = |letters| {
        let api = format!("S:{}", "a".repeat(letters));
        let document = format!(r#"{{"statements":[{{"effect":"allow","api":"{api}"}}]}}"#);
        Permissions::from_json(document.as_bytes()).unwrap()
    };
    // The first byte is the format.
    let (short, available) = (allowing(1), MAX_COMPILED_BYTES - 1);
    let size = short.as_bytes().len() - 1;
    let count = available / size - 1;
    let last = allowing(1 + available - count * size - size);
    let longest = Permissions::concat(std::iter::repeat_n(&short, count).chain([&last])).unwrap();
    assert_eq!(longest.as_bytes().len(), MAX_COMPILED_BYTES);
    let longer = [longest.as_bytes(), &short.as_bytes()[1..]].concat();
    assert_eq!(Permissions::from_bytes(longest.as_bytes().to_vec()), Ok(longest));
    assert!(Permissions::from_bytes(longer).is_err());
}
