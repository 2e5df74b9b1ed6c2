//! Every (phase, trigger) of a hierarchy's life, in one place.
//!
//! Decides what kind of step follows. Leaves carrying it out to [`super::Life`].

/// The phase, without its data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Out,
    Waiting,
    Claiming,
    Adopting,
    Starting,
    InService,
    Restarting,
    Stopping,
    Releasing,
    StopFailed,
}

/// What can happen to a hierarchy on a node, sorted by what it means for its phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trigger {
    /// Mastership says that it is this node's to recover.
    Candidate,
    /// Mastership says that it is not.
    NotCandidate,
    /// The claim is held.
    ClaimWon,
    /// The claim was refused.
    ClaimRefused,
    /// The claim is lost, or cannot be proven for long enough any more.
    ClaimLost,
    /// All resources run.
    AllUp,
    /// No resource runs.
    AllDown,
    /// A resource failed, and is to be repaired here.
    Repair,
    /// The hierarchy is to be given up in order: asked for, or failed here for good.
    GiveUp,
    /// A resource could neither be stopped nor killed.
    Stuck,
    /// The claim is given up.
    Released,
    /// Giving it up failed, and is worth another try.
    ReleaseFailed,
}

/// What follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Nothing: the trigger means nothing in this phase.
    Stay,
    /// Ask for the claim.
    Claim,
    /// Wait, to ask again later.
    Wait,
    /// Bring the resources up.
    Start,
    /// Look after a hierarchy in service.
    Serve,
    /// Restart what failed, here.
    Repair,
    /// Stop all in order, then release.
    Stop,
    /// Stop all by force: the claim is gone.
    StopByForce,
    /// Give the claim up.
    Release,
    /// Be out of service.
    Rest,
    /// Keep the claim, since something still runs.
    Hold,
    /// A claim arrived that nobody wants any more: give it back.
    GiveBack,
}

/// The table.
#[expect(
    clippy::match_same_arms,
    clippy::unnested_or_patterns,
    reason = "a row for each meaning, also where two read alike"
)]
pub(crate) fn step(phase: Kind, trigger: Trigger) -> Step {
    use Kind as K;
    use Trigger as T;
    match (phase, trigger) {
        (K::Out | K::Waiting, T::Candidate) => Step::Claim,
        (K::Waiting, T::NotCandidate) => Step::Rest,

        (K::Claiming, T::ClaimWon) => Step::Start,
        (K::Claiming, T::ClaimRefused) => Step::Wait,
        // An answer that was not waited for any more: what was taken is given back, since nothing runs under it.
        (K::Out | K::Waiting, T::ClaimWon) => Step::GiveBack,

        (K::Adopting | K::Starting | K::Restarting, T::AllUp) => Step::Serve,
        (K::Adopting | K::Starting | K::InService | K::Restarting, T::Repair) => Step::Repair,
        (K::Adopting | K::Starting | K::InService | K::Restarting, T::GiveUp) => Step::Stop,
        (
            K::Waiting
            | K::Claiming
            | K::Adopting
            | K::Starting
            | K::InService
            | K::Restarting
            | K::Stopping
            | K::StopFailed,
            T::ClaimLost,
        ) => Step::StopByForce,
        (K::Starting | K::InService | K::Restarting | K::Adopting | K::Stopping, T::Stuck) => Step::Hold,

        (K::Stopping | K::StopFailed, T::AllDown) => Step::Release,

        (K::Releasing, T::Released | T::ClaimLost) => Step::Rest,
        (K::Releasing, T::ReleaseFailed) => Step::Release,

        (K::Out | K::Waiting, T::ClaimRefused)
        | (K::Out, T::ClaimLost)
        | (K::Out, T::NotCandidate)
        | (
            K::Claiming
            | K::Adopting
            | K::Starting
            | K::InService
            | K::Restarting
            | K::Stopping
            | K::Releasing
            | K::StopFailed,
            T::Candidate | T::NotCandidate,
        )
        | (
            K::Adopting | K::Starting | K::InService | K::Restarting | K::Stopping | K::Releasing | K::StopFailed,
            T::ClaimWon | T::ClaimRefused,
        )
        | (K::Out | K::Waiting | K::Claiming | K::InService | K::Stopping | K::Releasing | K::StopFailed, T::AllUp)
        | (
            K::Out | K::Waiting | K::Claiming | K::Adopting | K::Starting | K::InService | K::Restarting | K::Releasing,
            T::AllDown,
        )
        | (K::Out | K::Waiting | K::Claiming | K::Stopping | K::Releasing | K::StopFailed, T::Repair)
        | (K::Out | K::Waiting | K::Claiming | K::Stopping | K::Releasing | K::StopFailed, T::GiveUp)
        | (K::Out | K::Waiting | K::Claiming | K::Releasing | K::StopFailed, T::Stuck)
        | (
            K::Out
            | K::Waiting
            | K::Claiming
            | K::Adopting
            | K::Starting
            | K::InService
            | K::Restarting
            | K::Stopping
            | K::StopFailed,
            T::Released | T::ReleaseFailed,
        ) => Step::Stay,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The whole table as an operator would draw it: a row for each phase, a column for each trigger.
    #[test]
    fn the_table_row_by_row() {
        let kinds = [
            Kind::Out,
            Kind::Waiting,
            Kind::Claiming,
            Kind::Adopting,
            Kind::Starting,
            Kind::InService,
            Kind::Restarting,
            Kind::Stopping,
            Kind::Releasing,
            Kind::StopFailed,
        ];
        let triggers = [
            Trigger::Candidate,
            Trigger::NotCandidate,
            Trigger::ClaimWon,
            Trigger::ClaimRefused,
            Trigger::ClaimLost,
            Trigger::AllUp,
            Trigger::AllDown,
            Trigger::Repair,
            Trigger::GiveUp,
            Trigger::Stuck,
            Trigger::Released,
            Trigger::ReleaseFailed,
        ];
        let drawn: Vec<String> = kinds
            .iter()
            .map(|k| {
                let cells: Vec<String> = triggers
                    .iter()
                    .map(|t| match step(*k, *t) {
                        Step::Stay => "-".to_owned(),
                        other => format!("{other:?}"),
                    })
                    .collect();
                format!("{k:?}: {}", cells.join(" "))
            })
            .collect();
        let expected = [
            "Out: Claim - GiveBack - - - - - - - - -",
            "Waiting: Claim Rest GiveBack - StopByForce - - - - - - -",
            "Claiming: - - Start Wait StopByForce - - - - - - -",
            "Adopting: - - - - StopByForce Serve - Repair Stop Hold - -",
            "Starting: - - - - StopByForce Serve - Repair Stop Hold - -",
            "InService: - - - - StopByForce - - Repair Stop Hold - -",
            "Restarting: - - - - StopByForce Serve - Repair Stop Hold - -",
            "Stopping: - - - - StopByForce - Release - - Hold - -",
            "Releasing: - - - - Rest - - - - - Rest Release",
            "StopFailed: - - - - StopByForce - Release - - - - -",
        ];
        assert_eq!(drawn, expected);
    }
}
