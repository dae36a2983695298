//! Finds the cycles of a graph. The graphs are small, so a cycle is found as a set of nodes that can all reach each
//! other.

use std::collections::{BTreeMap, BTreeSet};

type Graph<'a> = BTreeMap<&'a str, BTreeSet<&'a str>>;

/// Returns the groups of nodes that can all reach each other. The nodes of a group are sorted.
pub fn cycles<'a>(edges: &Graph<'a>) -> Vec<Vec<&'a str>> {
    let reached: BTreeMap<&str, BTreeSet<&str>> = edges.keys().map(|node| (*node, reachable(edges, node))).collect();
    let mut found: Vec<Vec<&str>> = Vec::new();
    for node in edges.keys() {
        let is_known = found.iter().any(|cycle| cycle.contains(node));
        if is_known || !reached[node].contains(node) {
            continue;
        }
        let mutual = edges
            .keys()
            .filter(|other| reached[node].contains(*other) && reached[*other].contains(node));
        found.push(mutual.copied().collect());
    }
    found
}

fn reachable<'a>(edges: &Graph<'a>, from: &str) -> BTreeSet<&'a str> {
    let mut reached = BTreeSet::new();
    let mut open: Vec<&str> = edges.get(from).into_iter().flatten().copied().collect();
    while let Some(node) = open.pop() {
        if reached.insert(node) {
            open.extend(edges.get(node).into_iter().flatten());
        }
    }
    reached
}

/// Describes the edges inside `cycle`, with one line for each node.
pub fn describe(cycle: &[&str], edges: &Graph<'_>) -> String {
    let inside = |node: &str| {
        let used: Vec<&str> = edges[node]
            .iter()
            .filter(|other| cycle.contains(other))
            .copied()
            .collect();
        format!("\n    {node} -> {}", used.join(", "))
    };
    cycle.iter().map(|node| inside(node)).collect()
}

#[test]
fn cycles_are_found_and_trees_are_not() {
    let graph = |rows: &[(&'static str, &[&'static str])]| -> Graph<'static> {
        rows.iter()
            .map(|(from, to)| (*from, to.iter().copied().collect()))
            .collect()
    };
    assert!(cycles(&graph(&[("a", &["b", "c"]), ("b", &["c"]), ("c", &[])])).is_empty());
    let two = graph(&[
        ("a", &["b"]),
        ("b", &["c"]),
        ("c", &["a"]),
        ("d", &["a", "e"]),
        ("e", &["d"]),
    ]);
    assert_eq!(cycles(&two), [vec!["a", "b", "c"], vec!["d", "e"]]);
}
