//! The order of resources.
//!
//! Decides an order in which resources can start, or names what keeps there from being one. Leaves telling it to the reader or the
//! builder.

use std::collections::{BTreeMap, BTreeSet};

use crate::name::ResourceName;

/// What is wrong with a graph of resources. Numbers are positions in the list that was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum GraphError {
    /// A name is there twice.
    Twice { first: usize, second: usize },
    /// A resource requires itself: the requirement with this number.
    Itself { at: usize, requirement: usize },
    /// A resource requires one that there is not: the requirement with this number.
    Unknown { at: usize, requirement: usize },
    /// Resources require each other in a circle; the first is repeated at the end.
    Cycle(Vec<usize>),
}

/// A resource by name, with the names of those that it requires.
pub(super) type Named = (ResourceName, Vec<ResourceName>);

/// An order, as positions in the given list: each resource after all that it requires, otherwise as given; with the requirements as
/// positions in that order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sorted {
    pub(super) order: Vec<usize>,
    pub(super) requires: Vec<Vec<usize>>,
}

/// Finds an order, or everything that is wrong. Circles that share a resource are told one at a time.
pub(super) fn sort(resources: &[Named]) -> Result<Sorted, Vec<GraphError>> {
    let mut errors = Vec::new();
    let mut positions: BTreeMap<&ResourceName, usize> = BTreeMap::new();
    for (second, (name, _)) in resources.iter().enumerate() {
        let first = *positions.entry(name).or_insert(second);
        if first != second {
            errors.push(GraphError::Twice { first, second });
        }
    }
    let mut edges: Vec<BTreeSet<usize>> = Vec::new();
    for (at, (own, requires)) in resources.iter().enumerate() {
        let mut known = BTreeSet::new();
        for (requirement, name) in requires.iter().enumerate() {
            match positions.get(name) {
                _ if name == own => errors.push(GraphError::Itself { at, requirement }),
                Some(required) => {
                    known.insert(*required);
                }
                None => errors.push(GraphError::Unknown { at, requirement }),
            }
        }
        edges.push(known);
    }
    errors.extend(cycles(&edges).into_iter().map(GraphError::Cycle));
    if errors.is_empty() { Ok(order(&edges)) } else { Err(errors) }
}

/// Of all that could come next, always the one that stands first. There must be no circle.
fn order(edges: &[BTreeSet<usize>]) -> Sorted {
    let mut required_by: Vec<Vec<usize>> = vec![Vec::new(); edges.len()];
    for (at, requires) in edges.iter().enumerate() {
        for required in requires {
            required_by[*required].push(at);
        }
    }
    let mut missing: Vec<usize> = edges.iter().map(BTreeSet::len).collect();
    let mut free: BTreeSet<usize> = (0..edges.len()).filter(|at| missing[*at] == 0).collect();
    let mut place = vec![0; edges.len()];
    let mut order = Vec::with_capacity(edges.len());
    while let Some(at) = free.pop_first() {
        place[at] = order.len();
        order.push(at);
        for waiting in &required_by[at] {
            missing[*waiting] -= 1;
            if missing[*waiting] == 0 {
                free.insert(*waiting);
            }
        }
    }
    let places = |at: &usize| {
        let mut places: Vec<usize> = edges[*at].iter().map(|required| place[*required]).collect();
        places.sort_unstable();
        places
    };
    let requires = order.iter().map(places).collect();
    Sorted { order, requires }
}

/// Circles, no two of which share a resource. Walks without recursion: a long chain must not overflow the stack.
fn cycles(edges: &[BTreeSet<usize>]) -> Vec<Vec<usize>> {
    let mut found: Vec<Vec<usize>> = Vec::new();
    let mut told = vec![false; edges.len()];
    let mut done = vec![false; edges.len()];
    // Where on the path from the start a resource is.
    let mut depth: Vec<Option<usize>> = vec![None; edges.len()];
    for start in 0..edges.len() {
        let mut path: Vec<(usize, std::collections::btree_set::Iter<'_, usize>)> = Vec::new();
        let mut next = (!done[start]).then_some(start);
        loop {
            if let Some(at) = next.take() {
                depth[at] = Some(path.len());
                path.push((at, edges[at].iter()));
            }
            let Some((at, rest)) = path.last_mut() else { break };
            let at = *at;
            match rest.next() {
                Some(to) if done[*to] => {}
                Some(to) => match depth[*to] {
                    None => next = Some(*to),
                    Some(from) => {
                        let mut cycle: Vec<usize> = path[from..].iter().map(|(at, _)| *at).collect();
                        if !cycle.iter().any(|at| told[*at]) {
                            for at in &cycle {
                                told[*at] = true;
                            }
                            cycle.push(*to);
                            found.push(cycle);
                        }
                    }
                },
                None => {
                    done[at] = true;
                    depth[at] = None;
                    path.pop();
                }
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn named(list: &[(&str, &[&str])]) -> Vec<Named> {
        let name = |n: &&str| ResourceName::new(n).unwrap();
        list.iter().map(|(own, requires)| (name(own), requires.iter().map(name).collect())).collect()
    }

    #[test]
    fn what_nothing_forces_stays_in_the_order_of_the_file() {
        let sorted = sort(&named(&[("server", &["data"]), ("vip", &[]), ("data", &[]), ("log", &["vip", "data"])]));
        let expected = Sorted { order: vec![1, 2, 0, 3], requires: vec![vec![], vec![], vec![1], vec![0, 1]] };
        assert_eq!(sorted, Ok(expected));
    }

    #[test]
    fn everything_wrong_is_told_at_once() {
        let list =
            [("a", &["b"] as &[&str]), ("b", &["a"]), ("c", &["c", "x"]), ("c", &[]), ("d", &["e"]), ("e", &["d"])];
        let expected = vec![
            GraphError::Twice { first: 2, second: 3 },
            GraphError::Itself { at: 2, requirement: 0 },
            GraphError::Unknown { at: 2, requirement: 1 },
            GraphError::Cycle(vec![0, 1, 0]),
            GraphError::Cycle(vec![4, 5, 4]),
        ];
        assert_eq!(sort(&named(&list)), Err(expected));
    }

    #[test]
    fn a_very_long_chain_is_no_danger_to_the_stack() {
        let name = |i: usize| ResourceName::new(format!("r{i}")).unwrap();
        let count = 20_000;
        let backwards: Vec<Named> =
            (0..count).map(|i| (name(i), (i + 1 < count).then(|| name(i + 1)).into_iter().collect())).collect();
        assert_eq!(sort(&backwards).unwrap().order, (0..count).rev().collect::<Vec<_>>());
    }

    proptest! {
        #[test]
        fn an_order_respects_every_requirement_or_a_circle_is_real(
            edges in prop::collection::vec(prop::collection::vec(0_usize..8, 0..4), 1..8),
        ) {
            let name = |i: usize| ResourceName::new(format!("r{i}")).unwrap();
            let count = edges.len();
            let list: Vec<Named> = edges
                .iter()
                .enumerate()
                .map(|(i, to)| (name(i), to.iter().filter(|t| **t < count && **t != i).map(|t| name(*t)).collect()))
                .collect();
            match sort(&list) {
                Ok(sorted) => {
                    prop_assert_eq!(sorted.order.len(), count);
                    for (place, requires) in sorted.requires.iter().enumerate() {
                        prop_assert!(requires.iter().all(|r| *r < place));
                        let wanted: BTreeSet<_> = list[sorted.order[place]].1.iter().collect();
                        let got: BTreeSet<_> = requires.iter().map(|r| &list[sorted.order[*r]].0).collect();
                        prop_assert_eq!(wanted, got);
                    }
                }
                Err(errors) => for error in errors {
                    let GraphError::Cycle(path) = error else { panic!("{error:?}") };
                    prop_assert_eq!(path.first(), path.last());
                    prop_assert!(path.windows(2).all(|w| list[w[0]].1.contains(&list[w[1]].0)));
                }
            }
        }
    }
}
