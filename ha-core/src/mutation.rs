//! Deliberate mistakes, to check the checkers: each can be switched on in a test of this crate, and a campaign must find it.
//!
//! Outside such tests the switch is a constant `false`, and nothing of it is left in the program.

/// A mistake that production code would make if it were switched on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mutation {
    /// A claim is taken from another node without waiting for the end of its lease.
    TakeWithoutWaiting,
    /// A renewal that was never acknowledged counts as if it had been.
    CountUnacknowledgedRenewal,
    /// What was decided in an instance is not taken over from the records of others.
    ForgetDecided,
    /// The watchdog is not told what runs under a lease.
    TellWatchdogNothing,
    /// A new tenure has the epoch of the last one.
    ReuseEpoch,
    /// A claim is given up while resources are still being stopped.
    ReleaseBeforeStopping,
    /// A refused claim is taken for a held one.
    StartWithoutClaim,
    /// Resources start whether or not what they require runs.
    StartOutOfOrder,
    /// Resources stop while what requires them runs.
    StopOutOfOrder,
    /// The end of a lease is waited out instead of stopping what runs before it, and the watchdog is not told of it.
    OverstayLease,
    /// A restarted agent does not know to when its earlier life had proven what runs.
    ForgetFormerTenure,
    /// A restarted agent restarts what runs.
    RestartInsteadOfAdopting,
    /// A refused claim is never asked for again.
    NeverAskAgain,
    /// A reservation is taken from a silent holder without giving it the time to defend itself.
    PreemptWithoutChallenge,
    /// A challenger whose key was removed challenges again, and preempts at once.
    IgnoreDefence,
    /// A holder looks at challengers and does nothing.
    NeverDefend,
    /// A node that was preempted registers again and takes the reservation back.
    FightBack,
    /// A node that did not get a reservation stays registered.
    StayRegistered,
    /// The arbiter is given up before the other devices.
    ArbiterFirst,
    /// What a preempted node had under way is not waited for, on a device that does not abort it.
    TrustPlainPreempt,
    /// A node is taken to be off as soon as its fencing was ordered.
    TakeOrderForProof,
    /// A tenure that goes on after a restart of the agent keeps its key.
    KeepKey,
    /// A device that lost its memory is taken before its holder could come back to it.
    TakeBlankAtOnce,
}

#[cfg(test)]
impl Mutation {
    /// Switches it on for what runs on this thread, until the answer is dropped.
    pub(crate) fn switch_on(self) -> SwitchedOn {
        ACTIVE.set(Some(self));
        SwitchedOn
    }
}

/// While it lives, a mutation is on.
#[cfg(test)]
pub(crate) struct SwitchedOn;

#[cfg(test)]
impl Drop for SwitchedOn {
    fn drop(&mut self) {
        ACTIVE.set(None);
    }
}

#[cfg(test)]
thread_local! {
    static ACTIVE: std::cell::Cell<Option<Mutation>> = const { std::cell::Cell::new(None) };
}

/// Whether a mistake is to be made.
#[cfg(test)]
pub(crate) fn is_on(mutation: Mutation) -> bool {
    ACTIVE.get() == Some(mutation)
}

/// Whether a mistake is to be made: never.
#[cfg(not(test))]
pub(crate) const fn is_on(_: Mutation) -> bool {
    false
}
