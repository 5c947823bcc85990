//! Model test: compiled statements agree with a simpler evaluator.

use core::net::IpAddr;

use proptest::prelude::*;
use verdict::permission::{AccessDecision, AccessRequest, Permissions, evaluate};

use crate::permissions::{NOW, REQUEST, parse};

/// An independent evaluator: a tree with the terms of the documentation.
#[derive(Debug, Clone)]
enum Tree {
    And(Box<Tree>, Box<Tree>),
    Or(Box<Tree>, Box<Tree>),
    Not(Box<Tree>),
    Address(&'static str),
    Text(&'static str, Text, Text),
    Number(&'static str, u64, u64),
    Date(&'static str, Option<u64>, Option<u64>),
}

#[derive(Debug, Clone)]
enum Text {
    Literal(&'static str),
    Variable(&'static str),
    UserName,
}

impl Tree {
    fn to_text(&self, out: &mut String) {
        let inner = |tree: &Tree, bare: bool, out: &mut String| {
            if bare {
                tree.to_text(out);
            } else {
                out.push('(');
                tree.to_text(out);
                out.push(')');
            }
        };
        match self {
            Self::And(left, right) => {
                inner(left, !matches!(**left, Self::Or(..)), out);
                *out += " and ";
                inner(right, !matches!(**right, Self::Or(..)), out);
            }
            Self::Or(left, right) => {
                inner(left, true, out);
                *out += " or ";
                inner(right, true, out);
            }
            Self::Not(tree) => {
                *out += "not ";
                inner(tree, !matches!(**tree, Self::And(..) | Self::Or(..)), out);
            }
            Self::Address(network) => *out += &format!("ipAddress('{network}')"),
            Self::Text(operator, left, right) => {
                *out += &format!("{}{operator}{}", left.to_text(), right.to_text())
            }
            Self::Number(operator, left, right) => *out += &format!("{left:03} {operator} {right}"),
            Self::Date(operator, left, right) => {
                let day_text = |day: &Option<u64>| match day {
                    Some(day) => format!("date(2023, 02, {day:02})"),
                    None => "currentDate".into(),
                };
                *out += &format!("{} {operator} {}", day_text(left), day_text(right));
            }
        }
    }

    fn value(&self, request: &AccessRequest<'_>) -> Option<bool> {
        match self {
            Self::And(left, right) => match [left.value(request), right.value(request)] {
                values if values.contains(&Some(false)) => Some(false),
                values if values.contains(&None) => None,
                _ => Some(true),
            },
            Self::Or(left, right) => match [left.value(request), right.value(request)] {
                values if values.contains(&Some(true)) => Some(true),
                values if values.contains(&None) => None,
                _ => Some(false),
            },
            Self::Not(tree) => Some(!tree.value(request)?),
            Self::Address(network) => {
                let (network, bits) = network.split_once('/').unwrap();
                let bits: usize = bits.parse().unwrap();
                let digits = |address: IpAddr| match address {
                    IpAddr::V4(address) => format!("4{:032b}", u32::from(address)),
                    IpAddr::V6(address) => format!("6{:0128b}", u128::from(address)),
                };
                let (client, network) = (digits(request.client?), digits(network.parse().unwrap()));
                Some(client[..=bits.min(client.len() - 1)] == network[..=bits])
            }
            Self::Text(operator, left, right) => {
                Some(compare(operator, &left.value(request)?, &right.value(request)?))
            }
            Self::Number(operator, left, right) => Some(compare(operator, left, right)),
            Self::Date(operator, left, right) => {
                let today = (request.now - NOW) / 86_400 + 1;
                Some(compare(operator, &left.unwrap_or(today), &right.unwrap_or(today)))
            }
        }
    }
}

impl Text {
    fn to_text(&self) -> String {
        match self {
            Self::Literal(text) => format!("'{text}'"),
            Self::Variable(name) => format!("pathVariable( '{name}' )"),
            Self::UserName => "samUserName".into(),
        }
    }

    fn value(&self, request: &AccessRequest<'_>) -> Option<String> {
        match self {
            Self::Literal(text) => Some((*text).into()),
            Self::Variable(name) => Some(request.variables.iter().find(|(known, _)| known == name)?.1.into()),
            Self::UserName => request.user_name.map(Into::into),
        }
    }
}

fn compare<T: PartialOrd>(operator: &str, left: &T, right: &T) -> bool {
    match operator {
        "==" => left == right,
        "!=" => left != right,
        "<" => left < right,
        "<=" => left <= right,
        ">" => left > right,
        ">=" => left >= right,
        _ => unreachable!(),
    }
}

fn trees() -> impl Strategy<Value = Tree> {
    let operator = || prop::sample::select(vec!["==", "!=", "<", "<=", ">", ">="]);
    let text = || {
        prop_oneof![
            prop::sample::select(vec!["", "a", "b", "and"]).prop_map(Text::Literal),
            prop::sample::select(vec!["a", "b", "c"]).prop_map(Text::Variable),
            Just(Text::UserName),
        ]
    };
    let day = || prop::option::of(1..=4u64);
    let networks = vec!["10.0.0.0/8", "10.1.0.0/16", "0.0.0.0/0", "2001:db8::/32", "::/0", "10.0.0.1/32"];
    let leaf = prop_oneof![
        prop::sample::select(networks).prop_map(Tree::Address),
        (operator(), text(), text()).prop_map(|(operator, left, right)| Tree::Text(operator, left, right)),
        (operator(), 0..3u64, 0..3u64)
            .prop_map(|(operator, left, right)| Tree::Number(operator, left, right)),
        (operator(), day(), day()).prop_map(|(operator, left, right)| Tree::Date(operator, left, right)),
    ];
    leaf.prop_recursive(5, 24, 2, |inner| {
        prop_oneof![
            (inner.clone(), inner.clone()).prop_map(|(a, b)| Tree::And(a.into(), b.into())),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| Tree::Or(a.into(), b.into())),
            inner.prop_map(|tree| Tree::Not(tree.into())),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn statements_agree_with_the_model(
        statements in prop::collection::vec((any::<bool>(), prop::collection::vec(prop::sample::select(vec!["*", "A:*", "A:g*", "A:get", "A:getX", "B:get"]), 1..3), prop::option::of(trees())), 0..5),
        api in prop::sample::select(vec!["A:get", "A:getX", "A:list", "B:get"]),
        user_name in prop::option::of(prop::sample::select(vec!["a", "b"])),
        client in prop::option::of(prop::sample::select(vec!["10.0.0.1", "10.1.2.3", "192.0.2.1", "2001:db8::1", "::1"])),
        values in prop::collection::vec(prop::option::of(prop::sample::select(vec!["", "a", "b"])), 3),
        days in 0..5u64,
    ) {
        let variables: Vec<(&str, &str)> = ["a", "b", "c"].into_iter().zip(values).filter_map(|(name, value)| Some((name, value?))).collect();
        let client = client.map(|client| client.parse().unwrap());
        let request = AccessRequest { api, user_name, client, now: NOW + days * 86_400 + 86_399, variables: &variables };
        let mut expected = AccessDecision::NotAllowed;
        for (deny, apis, tree) in &statements {
            let named = apis.iter().any(|pattern| match pattern.split_once('*') {
                Some((start, _)) => api.starts_with(start),
                None => api == *pattern,
            });
            let value = tree.as_ref().map_or(Some(true), |tree| tree.value(&request));
            if named && *deny && value != Some(false) {
                expected = AccessDecision::Denied;
            }
            if named && !deny && value == Some(true) && expected != AccessDecision::Denied {
                expected = AccessDecision::Allowed;
            }
        }
        let document = serde_json::json!({ "statements": statements.iter().map(|(deny, apis, tree)| {
            let mut statement = serde_json::json!({ "effect": if *deny { "deny" } else { "allow" }, "api": apis });
            if let Some(tree) = tree {
                let mut condition = String::new();
                tree.to_text(&mut condition);
                statement["condition"] = condition.into();
            }
            statement
        }).collect::<Vec<_>>() });
        let permissions = parse(&document.to_string());
        prop_assert_eq!(permissions.decide(&request), expected, "{}", document);
    }

    /// Damaged bytecode is refused or is a valid document, and never allows an operation that no remaining statement
    /// allows.
    #[test]
    fn compiled_encoding_is_unique(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
        let bytes = [&[1][..], &bytes].concat();
        let decision = evaluate(&bytes, &REQUEST);
        if let Ok(permissions) = Permissions::from_bytes(bytes) {
            prop_assert_eq!(decision, Ok(permissions.decide(&REQUEST)));
        }
    }
}
