//! A directed graph with labelled edges: strongly connected components, and the shortest way between two nodes.

use std::collections::{HashMap, VecDeque};

/// Place of a node.
pub(super) type Node = u32;

/// An edge and what it means.
#[derive(Clone, Copy, Debug)]
pub(super) struct Edge<L> {
    pub(super) from: Node,
    pub(super) to: Node,
    /// What a way pays for it: 0 or 1.
    pub(super) is_free: bool,
    pub(super) label: L,
}

/// All edges, by the node that they leave.
#[derive(Debug)]
pub(super) struct Graph<L> {
    edges: Vec<Edge<L>>,
    starts: Vec<usize>,
}

/// No component has this number.
const UNSEEN: u32 = u32::MAX;

impl<L: Copy> Graph<L> {
    pub(super) fn new(nodes: usize, mut edges: Vec<Edge<L>>) -> Self {
        edges.sort_by_key(|edge| edge.from);
        let mut starts = vec![0; nodes + 1];
        for edge in &edges {
            starts[edge.from as usize + 1] += 1;
        }
        for node in 0..nodes {
            starts[node + 1] += starts[node];
        }
        Self { edges, starts }
    }

    pub(super) fn edges(&self) -> &[Edge<L>] {
        &self.edges
    }

    fn nodes(&self) -> usize {
        self.starts.len() - 1
    }

    fn leaving(&self, node: Node) -> &[Edge<L>] {
        &self.edges[self.starts[node as usize]..self.starts[node as usize + 1]]
    }

    /// The number of the strongly connected component of each node, over the edges that are `used`. Two nodes that can
    /// reach each other have the same one. (Tarjan, "Depth-First Search and Linear Graph Algorithms", 1972; without
    /// recursion, since histories are longer than stacks.)
    pub(super) fn components(&self, used: impl Fn(&L) -> bool) -> Vec<u32> {
        let mut walk = Walk {
            index: vec![UNSEEN; self.nodes()],
            low: vec![0; self.nodes()],
            component: vec![UNSEEN; self.nodes()],
            stack: Vec::new(),
            seen: 0,
            components: 0,
        };
        let mut open: Vec<(Node, usize)> = Vec::new();
        for root in 0..self.nodes() {
            if walk.index[root] != UNSEEN {
                continue;
            }
            let root = node_of(root);
            walk.enter(root);
            open.push((root, self.starts[root as usize]));
            while let Some((node, next)) = open.last_mut() {
                let node = *node;
                if *next == self.starts[node as usize + 1] {
                    open.pop();
                    walk.leave(node, open.last().map(|(parent, _)| *parent));
                    continue;
                }
                let edge = &self.edges[*next];
                *next += 1;
                if !used(&edge.label) {
                    continue;
                }
                if walk.index[edge.to as usize] == UNSEEN {
                    walk.enter(edge.to);
                    open.push((edge.to, self.starts[edge.to as usize]));
                } else if walk.component[edge.to as usize] == UNSEEN {
                    walk.low[node as usize] = walk.low[node as usize].min(walk.index[edge.to as usize]);
                }
            }
        }
        walk.component
    }

    /// The cheapest way from one node to another over edges that are `used`, as places in [`Graph::edges`].
    pub(super) fn way(&self, from: Node, to: Node, used: impl Fn(&Edge<L>) -> bool) -> Option<Vec<usize>> {
        let mut reached: HashMap<Node, (u32, usize)> = HashMap::from([(from, (0, usize::MAX))]);
        let mut queue = VecDeque::from([(from, 0)]);
        while let Some((node, cost)) = queue.pop_front() {
            if node == to {
                return Some(self.back(from, to, &reached));
            }
            if reached[&node].0 < cost {
                continue;
            }
            let start = self.starts[node as usize];
            for (offset, edge) in self.leaving(node).iter().enumerate().filter(|(_, edge)| used(edge)) {
                let cost = cost + u32::from(!edge.is_free);
                if reached.get(&edge.to).is_some_and(|(known, _)| *known <= cost) {
                    continue;
                }
                reached.insert(edge.to, (cost, start + offset));
                if edge.is_free {
                    queue.push_front((edge.to, cost));
                } else {
                    queue.push_back((edge.to, cost));
                }
            }
        }
        None
    }

    fn back(&self, from: Node, to: Node, reached: &HashMap<Node, (u32, usize)>) -> Vec<usize> {
        let mut way = Vec::new();
        let mut node = to;
        while node != from {
            let (_, edge) = reached[&node];
            way.push(edge);
            node = self.edges[edge].from;
        }
        way.reverse();
        way
    }
}

struct Walk {
    index: Vec<u32>,
    low: Vec<u32>,
    component: Vec<u32>,
    stack: Vec<Node>,
    seen: u32,
    components: u32,
}

impl Walk {
    fn enter(&mut self, node: Node) {
        self.index[node as usize] = self.seen;
        self.low[node as usize] = self.seen;
        self.seen += 1;
        self.stack.push(node);
    }

    fn leave(&mut self, node: Node, parent: Option<Node>) {
        let low = self.low[node as usize];
        if let Some(parent) = parent {
            self.low[parent as usize] = self.low[parent as usize].min(low);
        }
        if low != self.index[node as usize] {
            return;
        }
        while let Some(member) = self.stack.pop() {
            self.component[member as usize] = self.components;
            if member == node {
                break;
            }
        }
        self.components += 1;
    }
}

/// The place of a node that was counted in another width.
pub(super) fn node_of(place: usize) -> Node {
    Node::try_from(place).expect("a history has far fewer transactions than a node can number")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn graph(nodes: usize, pairs: &[(Node, Node, bool)]) -> Graph<bool> {
        let edges =
            pairs.iter().map(|(from, to, is_free)| Edge { from: *from, to: *to, is_free: *is_free, label: *is_free });
        Graph::new(nodes, edges.collect())
    }

    #[test]
    fn nodes_that_reach_each_other_are_one_component() {
        let graph =
            graph(6, &[(0, 1, false), (1, 2, false), (2, 0, false), (2, 3, false), (3, 4, false), (4, 3, true)]);
        let found = graph.components(|_| true);
        assert!(found[0] == found[1] && found[1] == found[2], "{found:?}");
        assert!(found[3] == found[4] && found[3] != found[0], "{found:?}");
        assert!(found[5] != found[0] && found[5] != found[3], "{found:?}");
        let found = graph.components(|is_free| !is_free);
        assert_ne!(found[3], found[4]);
    }

    #[test]
    fn a_long_chain_needs_no_stack() {
        const LENGTH: Node = 200_000;
        let mut pairs: Vec<(Node, Node, bool)> = (1..LENGTH).map(|node| (node - 1, node, false)).collect();
        pairs.push((LENGTH - 1, 0, false));
        let found = graph(LENGTH as usize, &pairs).components(|_| true);
        assert!(found.iter().all(|component| *component == found[0]));
    }

    #[test]
    fn the_cheapest_way_may_be_the_longer_one() {
        let pairs = [(0, 1, false), (1, 4, false), (0, 2, true), (2, 3, true), (3, 4, false)];
        let graph = graph(5, &pairs);
        let way = graph.way(0, 4, |_| true).unwrap();
        let nodes: Vec<Node> = way.iter().map(|edge| graph.edges()[*edge].to).collect();
        assert_eq!(nodes, [2, 3, 4]);
        assert!(graph.way(4, 0, |_| true).is_none());
    }
}
