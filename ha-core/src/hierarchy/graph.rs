//! The order of resources.
//!
//! Decides an order in which resources can start, or names what keeps there from being one. Leaves telling it to the reader or the builder.

use crate::name::ResourceName;

/// What is wrong with a graph of resources. Numbers are positions in the list that was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum GraphError {
    /// A name is there twice.
    Twice { first: usize, second: usize },
    /// A resource requires one that there is not.
    Unknown { at: usize, requires: ResourceName },
    /// Resources require each other in a circle; the first is repeated at the end.
    Cycle(Vec<usize>),
}

/// An order, as positions in the given list: each resource after all that it requires, otherwise as given; with the requirements as positions in that order.
pub(super) struct Sorted {
    pub(super) order: Vec<usize>,
    pub(super) requires: Vec<Vec<usize>>,
}

pub(super) fn sort(resources: &[(ResourceName, Vec<ResourceName>)]) -> Result<Sorted, Vec<GraphError>> {
    let position = |name: &ResourceName| resources.iter().position(|(n, _)| n == name);
    let mut errors = Vec::new();
    for (second, (name, _)) in resources.iter().enumerate() {
        if let Some(first) = position(name).filter(|first| *first < second) {
            errors.push(GraphError::Twice { first, second });
        }
    }
    let mut edges = Vec::new();
    for (at, (_, requires)) in resources.iter().enumerate() {
        let mut known = Vec::new();
        for name in requires {
            match position(name) {
                Some(required) => known.push(required),
                None => errors.push(GraphError::Unknown { at, requires: name.clone() }),
            }
        }
        edges.push(known);
    }
    if let Some(cycle) = find_cycle(&edges) {
        errors.push(GraphError::Cycle(cycle));
    }
    if !errors.is_empty() {
        return Err(errors);
    }
    let mut order: Vec<usize> = Vec::new();
    while order.len() < resources.len() {
        // There is no cycle, so something is always free.
        let free = (0..resources.len()).find(|i| !order.contains(i) && edges[*i].iter().all(|r| order.contains(r)));
        match free {
            Some(i) => order.push(i),
            None => break,
        }
    }
    let place = |old: usize| order.iter().position(|o| *o == old).unwrap_or(0);
    let requires = order
        .iter()
        .map(|old| {
            let mut requires: Vec<usize> = edges[*old].iter().map(|r| place(*r)).collect();
            requires.sort_unstable();
            requires.dedup();
            requires
        })
        .collect();
    Ok(Sorted { order, requires })
}

fn find_cycle(edges: &[Vec<usize>]) -> Option<Vec<usize>> {
    let mut done = vec![false; edges.len()];
    for start in 0..edges.len() {
        let mut path = Vec::new();
        if let Some(cycle) = walk(start, edges, &mut path, &mut done) {
            return Some(cycle);
        }
    }
    None
}

/// Not recursive: a file with ten thousand resources must not overflow the stack.
fn walk(start: usize, edges: &[Vec<usize>], path: &mut Vec<(usize, usize)>, done: &mut [bool]) -> Option<Vec<usize>> {
    if done[start] {
        return None;
    }
    path.push((start, 0));
    while let Some((node, next)) = path.last_mut() {
        let node = *node;
        match edges[node].get(*next) {
            Some(&to) => {
                *next += 1;
                if let Some(from) = path.iter().position(|(n, _)| *n == to) {
                    let mut cycle: Vec<usize> = path[from..].iter().map(|(n, _)| *n).collect();
                    cycle.push(to);
                    return Some(cycle);
                }
                if !done[to] {
                    path.push((to, 0));
                }
            }
            None => {
                done[node] = true;
                path.pop();
            }
        }
    }
    None
}
