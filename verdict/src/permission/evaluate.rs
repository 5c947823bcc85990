use core::cmp::Ordering;

use super::{
    Malformed, Question, Ruling,
    code::{Code, Comparison, Effect, Instruction, MAX_HEIGHT, Operand},
    date, network,
};

/// Rules on compiled statements in place. Malformed ones allow nothing: the caller refuses.
///
/// # Errors
///
/// Returns [`Malformed`] for bytes that [`Permissions::as_bytes`](super::Permissions::as_bytes) cannot have written.
pub fn evaluate(compiled: &[u8], question: &Question<'_>) -> Result<Ruling, Malformed> {
    let mut code = Code::open(compiled)?;
    let mut ruling = Ruling::NotAllowed;
    while let Some(statement) = code.statement()? {
        if !statement.patterns.matches(question.api) {
            continue;
        }
        match (statement.effect, holds(statement.condition, question)?) {
            (Effect::Deny, Some(true) | None) => return Ok(Ruling::Denied),
            (Effect::Allow, Some(true)) => ruling = Ruling::Allowed,
            (Effect::Deny, Some(false)) | (Effect::Allow, Some(false) | None) => {}
        }
    }
    Ok(ruling)
}

/// Three-valued; None is unknown.
type Truth = Option<bool>;

fn holds(mut condition: Code<'_>, question: &Question<'_>) -> Result<Truth, Malformed> {
    if condition.0.is_empty() {
        return Ok(Some(true));
    }
    let mut stack = Stack { slots: [None; MAX_HEIGHT], height: 0 };
    while let Some(instruction) = condition.instruction()? {
        let result = match instruction {
            Instruction::And => both(stack.pop()?, stack.pop()?),
            Instruction::Or => either(stack.pop()?, stack.pop()?),
            Instruction::Not => stack.pop()?.map(|truth| !truth),
            Instruction::AddressIn(network) => {
                question.client.map(|client| network::contains(network, client))
            }
            Instruction::Compare(operator, left, right) => {
                order(left, right, question).map(|order| operator.holds(order))
            }
        };
        stack.push(result)?;
    }
    let result = stack.pop()?;
    if stack.height == 0 { Ok(result) } else { Err(Malformed("stack")) }
}

struct Stack {
    slots: [Truth; MAX_HEIGHT],
    height: usize,
}

impl Stack {
    fn push(&mut self, truth: Truth) -> Result<(), Malformed> {
        *self.slots.get_mut(self.height).ok_or(Malformed("height of the stack"))? = truth;
        self.height = self.height.saturating_add(1);
        Ok(())
    }

    fn pop(&mut self) -> Result<Truth, Malformed> {
        self.height = self.height.checked_sub(1).ok_or(Malformed("stack"))?;
        self.slots.get(self.height).copied().ok_or(Malformed("stack"))
    }
}

const fn both(left: Truth, right: Truth) -> Truth {
    match (left, right) {
        (Some(false), _) | (_, Some(false)) => Some(false),
        (Some(true), Some(true)) => Some(true),
        _ => None,
    }
}

const fn either(left: Truth, right: Truth) -> Truth {
    match (left, right) {
        (Some(true), _) | (_, Some(true)) => Some(true),
        (Some(false), Some(false)) => Some(false),
        _ => None,
    }
}

impl Comparison {
    const fn holds(self, order: Ordering) -> bool {
        match self {
            Self::Equal => order.is_eq(),
            Self::NotEqual => order.is_ne(),
            Self::Less => order.is_lt(),
            Self::AtMost => order.is_le(),
            Self::More => order.is_gt(),
            Self::AtLeast => order.is_ge(),
        }
    }
}

/// None when one of them is not known. Text goes by its bytes.
fn order(left: Operand<'_>, right: Operand<'_>, question: &Question<'_>) -> Option<Ordering> {
    match (number(left, question), number(right, question)) {
        (Some(left), Some(right)) => Some(left.cmp(&right)),
        _ => Some(text(left, question)?.cmp(text(right, question)?)),
    }
}

fn number(operand: Operand<'_>, question: &Question<'_>) -> Option<u64> {
    match operand {
        Operand::Number(number) => Some(number),
        Operand::Day(day) => Some(day),
        Operand::Today => Some(date::day_of(question.now)),
        Operand::Text(_) | Operand::PathVariable(_) | Operand::UserName => None,
    }
}

fn text<'a>(operand: Operand<'a>, question: &Question<'a>) -> Option<&'a [u8]> {
    match operand {
        Operand::Text(text) => Some(text),
        Operand::PathVariable(name) => {
            let (_, value) = question.variables.iter().find(|(known, _)| known.as_bytes() == name)?;
            Some(value.as_bytes())
        }
        Operand::UserName => question.user_name.map(str::as_bytes),
        Operand::Number(_) | Operand::Day(_) | Operand::Today => None,
    }
}
