//! What an observer knows who sees everything: which instance decided what, and the epochs that were acquired.

use super::Values;
use crate::claim::lock_area::layout::{Committed, Value};
use crate::name::BootId;

/// How many instances a run can have.
const INSTANCES: usize = 14;

/// What one instance decided.
pub(super) type Decided = Value;

/// The decisions so far, by number of their value, from instance 1 on; and the greatest epoch acquired.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Truth {
    decided: [u8; INSTANCES],
    count: u8,
    epoch: u8,
}

impl Truth {
    /// A node takes this for decided. It must be so for all, for ever.
    pub(super) fn told(&mut self, told: &Committed, values: &mut Values) -> Result<(), String> {
        let instance = told.instance as usize;
        if instance == 0 {
            return Ok(());
        }
        let value = match (&told.name, instance) {
            (Some(name), 1) => Value::Name(name.clone()),
            _ => Value::Owner(told.ownership),
        };
        let number = match values.iter().find(|(_, v)| **v == value) {
            Some((number, _)) => *number,
            None => {
                let number = u8::try_from(values.len() + 1).map_err(|_| "more values than the model has room for")?;
                values.insert(number, value.clone());
                number
            }
        };
        let place = self.decided.get_mut(instance - 1).ok_or("more instances than the model has room for")?;
        if instance <= usize::from(self.count) {
            if *place != number {
                return Err(format!(
                    "takes instance {instance} for {}, but {} was decided",
                    tell(&value),
                    tell(&values[place])
                ));
            }
            return Ok(());
        }
        if instance != usize::from(self.count) + 1 {
            return Err(format!("takes instance {instance} for decided, while instance {} is not", instance - 1));
        }
        *place = number;
        self.count += 1;
        self.grows(values)
    }

    /// The epoch of the last decision is greater than those before, unless it is the same tenure, or its end.
    fn grows(&self, values: &Values) -> Result<(), String> {
        let known = self.decided[..usize::from(self.count)].iter();
        let owners = known.filter_map(|n| if let Value::Owner(o) = &values[n] { Some(o) } else { None });
        let mut before = None;
        for o in owners {
            if let Some(b) = before.replace(*o)
                && (o.epoch < b.epoch || (o.epoch == b.epoch && o.owner.is_some() && o.owner != b.owner))
            {
                return Err(format!("{} was decided after {}", tell(&Value::Owner(*o)), tell(&Value::Owner(b))));
            }
        }
        Ok(())
    }

    /// A node is told that it has the claim.
    pub(super) fn acquired(
        &mut self,
        owner: (u8, BootId),
        epoch: u8,
        confirmed: bool,
        values: &Values,
    ) -> Result<(), String> {
        let last = self.decided[..usize::from(self.count)].last().map(|n| &values[n]);
        match last {
            Some(Value::Owner(o)) if o.owner == Some(owner) && o.epoch == u64::from(epoch) => {}
            other => {
                let other = other.map_or_else(|| "nothing".to_owned(), tell);
                return Err(format!("node {} acquires epoch {epoch}, but what was decided last is {other}", owner.0));
            }
        }
        if confirmed {
            return Ok(());
        }
        if epoch <= self.epoch {
            return Err(format!("epoch {epoch} is acquired after epoch {}", self.epoch));
        }
        self.epoch = epoch;
        Ok(())
    }

    pub(super) fn describe(&self, bytes: &mut Vec<u8>) {
        bytes.extend(&self.decided[..usize::from(self.count)]);
        bytes.push(self.epoch);
    }
}

pub(super) fn tell(value: &Value) -> String {
    match value {
        Value::Name(name) => format!("the name {name}"),
        Value::Owner(o) => match o.owner {
            Some((slot, boot)) => format!("epoch {} of node {slot} (boot {})", o.epoch, boot.0[0]),
            None => format!("nobody after epoch {}", o.epoch),
        },
    }
}
