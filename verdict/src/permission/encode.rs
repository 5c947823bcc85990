//! Encodes the bytecode that [`super::bytecode`] decodes.

use alloc::vec::Vec;

use ipnet::IpNet;

use super::bytecode::{AND, COMPARE, Comparison, Effect, IPV4, IPV6, NOT, OR, Op, Operand};

pub(super) fn write_statement(
    out: &mut Vec<u8>,
    effect: Effect,
    patterns: &[(bool, &str)],
    condition: &[u8],
) {
    out.push(match effect {
        Effect::Deny => 0,
        Effect::Allow => 1,
    });
    write_varint(out, u64::try_from(patterns.len()).unwrap_or(u64::MAX));
    for (prefix, text) in patterns {
        out.push(u8::from(*prefix));
        write_text(out, text.as_bytes());
    }
    write_text(out, condition);
}

pub(super) fn write_op(out: &mut Vec<u8>, op: Op<'_>) {
    match op {
        Op::And => out.push(AND),
        Op::Or => out.push(OR),
        Op::Not => out.push(NOT),
        Op::AddressIn(IpNet::V4(network)) => {
            out.push(IPV4);
            out.extend(network.addr().octets());
            out.push(network.prefix_len());
        }
        Op::AddressIn(IpNet::V6(network)) => {
            out.push(IPV6);
            out.extend(network.addr().octets());
            out.push(network.prefix_len());
        }
        Op::Compare(operator, left, right) => {
            out.push(COMPARE);
            let number = Comparison::ALL.iter().position(|known| *known == operator);
            out.push(number.and_then(|number| u8::try_from(number).ok()).unwrap_or(u8::MAX));
            write_operand(out, left);
            write_operand(out, right);
        }
    }
}

fn write_operand(out: &mut Vec<u8>, operand: Operand<'_>) {
    match operand {
        Operand::Text(text) => {
            out.push(0);
            write_text(out, text);
        }
        Operand::PathVariable(name) => {
            out.push(1);
            write_text(out, name);
        }
        Operand::UserName => out.push(2),
        Operand::Number(number) => {
            out.push(3);
            write_varint(out, number);
        }
        Operand::Day(day) => {
            out.push(4);
            write_varint(out, day);
        }
        Operand::Today => out.push(5),
    }
}

fn write_text(out: &mut Vec<u8>, text: &[u8]) {
    write_varint(out, u64::try_from(text.len()).unwrap_or(u64::MAX));
    out.extend(text);
}

fn write_varint(out: &mut Vec<u8>, mut value: u64) {
    loop {
        let [.., low] = value.to_be_bytes();
        value >>= 7;
        if value == 0 {
            return out.push(low & 0x7f);
        }
        out.push(low | 0x80);
    }
}
