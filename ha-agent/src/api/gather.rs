//! Asks every peer in contact for its view, in parallel and bounded, and makes one picture of the answers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ha_core::engine::{Ask, Command, Reply};
use ha_core::name::NodeName;
use tokio::task::JoinSet;

use super::{Agent, Stopped};
use crate::view::{Answer, ClusterView, Place, merge};

/// A peer that needs longer is shown as one that did not answer.
const PEER_ANSWERS_WITHIN: Duration = Duration::from_secs(1);
/// Views are not taken at one moment: a handover can show two holders for this long.
const SECOND_LOOK_AFTER: Duration = Duration::from_millis(200);

/// The picture. A dispute over a claim is reported only if a second look shows it too.
pub(crate) async fn gather(agent: &Arc<dyn Agent>) -> Result<ClusterView, Stopped> {
    let first = look(agent).await?;
    if first.hierarchies.iter().any(|h| matches!(h.place, Place::Disputed(_))) {
        tokio::time::sleep(SECOND_LOOK_AFTER).await;
        return look(agent).await;
    }
    Ok(first)
}

async fn look(agent: &Arc<dyn Agent>) -> Result<ClusterView, Stopped> {
    let local = agent.snapshot().await?;
    let mut asking = JoinSet::new();
    for peer in local.peers.iter().filter(|p| matches!(p.state.as_str(), "alive" | "late")) {
        asking.spawn(ask(Arc::clone(agent), peer.node.clone()));
    }
    let mut answers = BTreeMap::new();
    while let Some(joined) = asking.join_next().await {
        if let Ok((node, answer)) = joined {
            answers.insert(node, answer);
        }
    }
    Ok(merge(&local, &answers, agent.warnings()))
}

async fn ask(agent: Arc<dyn Agent>, node: NodeName) -> (NodeName, Answer) {
    let command = Command { what: Ask::View, by: String::new(), reason: String::new() };
    let answer = match tokio::time::timeout(PEER_ANSWERS_WITHIN, agent.command(Some(node.clone()), command)).await {
        Ok(Ok(Reply::View(view))) => Answer::View(view),
        Ok(Ok(Reply::Accepted(_))) => Answer::Missing("it answered with something else".to_owned()),
        Ok(Err(refused)) => Answer::Missing(refused.to_string()),
        Err(_) => Answer::Missing("no answer within 1 s".to_owned()),
    };
    (node, answer)
}
