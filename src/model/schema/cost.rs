//! The cost of checking a document against a schema, proved from the schema alone.
//!
//! The validator visits pairs of a schema node and an instance node. A schema node sends the visit on in two
//! ways: to other schemas at the **same** instance node (`$ref`, `allOf`, `anyOf`, `oneOf`, `not`, `if`,
//! `dependentSchemas`), or to schemas at its **children** (`properties`, `items`, ...). So the cost of a
//! whole check is at most a *rate* times the document's bytes:
//!
//! - *own*: the work of one visit, for each byte that belongs to that instance node and to none of its
//!   children, plus the own of all nodes to which it sends the visit on at the same instance node, each as
//!   often as it does. Two `$ref` to the next level, sixty levels deep, are 2^60 here; a validator without
//!   memory of its own does exactly that.
//! - *below*: the rate at which one child is visited: the worst key, since `properties` gives a key to one
//!   schema, plus the keywords that check every key.
//! - The rate is the larger of the two, because a byte is a node's own or its child's; keywords that read a
//!   whole subtree at once (`uniqueItems`) are added.
//!
//! A schema may lead back to itself, in a cycle:
//!
//! - A cycle that does not descend into the instance would never end: refused.
//! - If it descends, and every child is visited on at most one way (*linear*: a tree whose `children` are
//!   trees), each instance node gets each visit once. Only what is read beside the cycle is counted again for
//!   every level, of which there are [`DOCUMENT_DEPTH_MAX`].
//! - If a cycle visits a child twice, a document nested sixty deep means 2^60 visits: refused.
//!
//! `unevaluatedProperties` and `unevaluatedItems` search again for what other keywords have evaluated
//! (*marking*): all branches are checked again and then marked themselves. This is a second kind of node in
//! the same graph, so that one level costs a few times as much and twenty nested ones a million times.
//!
//! The author of a schema also chooses the depth of the validator's own recursion and the cost of compiling,
//! so both are bounded here too.

use std::collections::{HashMap, HashSet};

use serde_json::Value;

use super::graph::{Graph, Node, Place, Why};
use crate::model::{
    Edition,
    limits::{
        DOCUMENT_BYTES_MAX, DOCUMENT_DEPTH_MAX, SCHEMA_CHAIN_MAX, SCHEMA_DOCUMENT_BYTES_MIN, SCHEMA_NODES_MAX, SCHEMA_PROOF_STEPS_MAX,
        SCHEMA_UNITS_MAX,
    },
};

/// The proven cost of a schema.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Proven {
    /// Most units for each byte of a document.
    pub rate: f64,
    /// How often the rate is spent to describe a mismatch: each alternative is checked again inside the one
    /// around it.
    pub described: f64,
    /// Whether the schema has alternatives; then even the first mismatch is a list.
    pub alternatives: bool,
}

impl Proven {
    /// Largest document, in bytes.
    pub fn document_bytes_max(&self) -> usize {
        ((SCHEMA_UNITS_MAX as f64 / self.rate) as usize).min(DOCUMENT_BYTES_MAX)
    }
}

/// Proves a rate for `schema`, or says what prevents it, and where.
pub(super) fn prove(schema: &Value, edition: Edition) -> Result<Proven, Why> {
    let graph = Graph::of(schema, edition)?;
    let mut proof =
        Proof { graph: &graph, found: vec![None; graph.nodes.len()], order: 0, stack: Vec::new(), steps: 0, compiled: HashMap::new() };
    proof.visit(0, 0)?;
    let root = proof.of(0);
    let nodes = proof.all_compiled()?;
    if nodes > SCHEMA_NODES_MAX as f64 {
        return Err(graph.nodes[0].why(format!("compiling it makes {} nodes; at most {SCHEMA_NODES_MAX} are made", round(nodes)), SPLIT));
    }
    let most = SCHEMA_UNITS_MAX as f64 / SCHEMA_DOCUMENT_BYTES_MIN as f64;
    if root.rate > most {
        return Err(graph.nodes[proof.dearest()].why(
            format!(
                "checking a document may take {} steps for each of its bytes; at most {most} are taken, so that {} KiB are checked in time",
                round(root.rate),
                SCHEMA_DOCUMENT_BYTES_MIN >> 10
            ),
            "fewer alternatives inside each other, smaller counts in patterns, or the same `$ref` in one place instead of several make it cheaper",
        ));
    }
    let alternatives = graph.nodes.iter().any(|node| node.alternatives);
    Ok(Proven { rate: root.rate.max(1.0), described: 1.0 + root.nested, alternatives })
}

const SPLIT: &str = "make the schema smaller, or split the operation";
const ONCE: &str = "put the `$ref` that leads back into one place, outside of `anyOf`, `oneOf`, `allOf` and `if`: there, say what differs by `required` and `const`";

fn too_deep(node: &Node, depth: usize) -> Result<(), Why> {
    match depth > SCHEMA_CHAIN_MAX {
        true => Err(node.why(format!("schemas inside each other, or `$ref` after `$ref`, for more than {SCHEMA_CHAIN_MAX} levels"), SPLIT)),
        false => Ok(()),
    }
}

fn round(count: f64) -> String {
    match count {
        count if count < 1e6 => format!("{count:.0}"),
        count if count.is_finite() => format!("10^{:.0}", count.log10()),
        _ => "endlessly many".to_owned(),
    }
}

/// The cost of a node, known once the costs of all nodes that it leads to are.
#[derive(Debug, Clone, Copy, Default)]
struct Cost {
    own: f64,
    /// Cost at a child of an object, and at a child of an array.
    below: [f64; 2],
    whole: f64,
    rate: f64,
    /// Longest chain of schemas active inside each other.
    chain: usize,
    /// Nesting depth of alternatives.
    nested: f64,
}

#[derive(Debug, Clone, Copy)]
enum Found {
    /// Its order of visit.
    Open(usize),
    Done(Cost),
}

struct Proof<'a> {
    graph: &'a Graph<'a>,
    found: Vec<Option<Found>>,
    order: usize,
    /// Nodes whose cycle is not complete (Tarjan).
    stack: Vec<usize>,
    steps: usize,
    /// Number of nodes that compiling makes of each; `None` while it is being counted.
    compiled: HashMap<usize, Option<f64>>,
}

impl Proof<'_> {
    fn of(&self, node: usize) -> Cost {
        match self.found[node] {
            Some(Found::Done(cost)) => cost,
            _ => Cost::default(),
        }
    }

    fn step(&mut self, at: usize, steps: usize) -> Result<(), Why> {
        self.steps += steps;
        match self.steps > SCHEMA_PROOF_STEPS_MAX {
            true => Err(self.graph.nodes[at].why("too entangled to say what checking costs".into(), SPLIT)),
            false => Ok(()),
        }
    }

    /// Tarjan's search for cycles; each cycle is settled after all nodes that it leads to.
    fn visit(&mut self, at: usize, depth: usize) -> Result<usize, Why> {
        let node = &self.graph.nodes[at];
        too_deep(node, depth)?;
        let order = self.order;
        self.order += 1;
        let mut low = order;
        self.found[at] = Some(Found::Open(order));
        self.stack.push(at);
        self.step(at, 1 + node.edges.len())?;
        for edge in &node.edges {
            match self.found[edge.to] {
                None => low = low.min(self.visit(edge.to, depth + 1)?),
                Some(Found::Open(order)) => low = low.min(order),
                Some(Found::Done(_)) => {}
            }
        }
        if low == order {
            let from = self.stack.iter().rposition(|other| *other == at).unwrap_or(0);
            let circle: HashSet<usize> = self.stack.drain(from..).collect();
            let alone = circle.len() == 1 && node.edges.iter().all(|edge| edge.to != at);
            match alone {
                true => self.settle_one(at)?,
                false => self.settle_circle(&circle)?,
            }
        }
        Ok(low)
    }

    fn finish(&mut self, at: usize, cost: Cost) -> Result<(), Why> {
        if cost.chain > SCHEMA_CHAIN_MAX {
            return Err(self.graph.nodes[at].why(
                format!("up to {} schemas at work inside each other; at most {SCHEMA_CHAIN_MAX} are held", cost.chain),
                "fewer `$ref` and `allOf` from one level of the document to the next make it flatter",
            ));
        }
        self.found[at] = Some(Found::Done(cost));
        Ok(())
    }

    /// Settles a node that does not lead back to itself.
    fn settle_one(&mut self, at: usize) -> Result<(), Why> {
        let node = &self.graph.nodes[at];
        let mut cost = Cost { own: node.own, whole: node.whole, chain: 1, nested: 0.0, ..Cost::default() };
        let (mut one_key, mut each_key, mut one_item, mut each_item) = (0.0_f64, 0.0, 0.0_f64, 0.0);
        for edge in &node.edges {
            let to = self.of(edge.to);
            match edge.place {
                Place::Built => continue,
                Place::Here { .. } => {
                    cost.own += to.own;
                    cost.whole += to.whole;
                    cost.below = [cost.below[0] + to.below[0], cost.below[1] + to.below[1]];
                }
                // Each key is a text of its own.
                Place::Name => cost.own += to.rate,
                Place::Named(_) | Place::Other => one_key = one_key.max(to.rate),
                Place::EveryKey => each_key += to.rate,
                Place::Index(_) | Place::Rest => one_item = one_item.max(to.rate),
                Place::EveryItem => each_item += to.rate,
            }
            cost.chain = cost.chain.max(1 + to.chain);
            cost.nested = cost.nested.max(to.nested);
        }
        cost.below = [cost.below[0] + one_key + each_key, cost.below[1] + one_item + each_item];
        cost.nested += f64::from(u8::from(node.alternatives));
        cost.rate = cost.own.max(cost.below[0]).max(cost.below[1]) + cost.whole;
        self.finish(at, cost)
    }

    /// Settles nodes that lead back to each other.
    fn settle_circle(&mut self, circle: &HashSet<usize>) -> Result<(), Why> {
        let levels = DOCUMENT_DEPTH_MAX as f64;
        let mut all = Cost { chain: 0, ..Cost::default() };
        let mut longest = 0;
        for at in circle {
            let here = self.here(*at)?;
            longest = longest.max(here.chain);
            let (mut own, mut whole) = (0.0, 0.0);
            for (node, times) in &here.visits {
                own += self.graph.nodes[*node].own * times;
                whole += self.graph.nodes[*node].whole * times;
                for edge in &self.graph.nodes[*node].edges {
                    if !circle.contains(&edge.to) && !matches!(edge.place, Place::Built | Place::Here { .. }) {
                        let to = self.of(edge.to);
                        all.chain = all.chain.max(to.chain);
                        all.nested = all.nested.max(to.nested);
                        if matches!(edge.place, Place::Name) {
                            own += to.rate * times;
                        }
                    }
                }
            }
            let (apart, beside) = self.children(*at, circle, &here.visits)?;
            all.own = all.own.max(own);
            all.whole = all.whole.max(whole);
            all.below[0] = all.below[0].max(apart);
            all.below[1] = all.below[1].max(beside);
        }
        // Each level reads again what lies beside the cycle, and a whole subtree.
        let rate = all.own.max(all.below[0]) + levels * (all.below[1] + all.whole);
        let alternatives = circle.iter().any(|at| self.graph.nodes[*at].alternatives);
        let nested = all.nested + if alternatives { levels } else { 0.0 };
        let chain = DOCUMENT_DEPTH_MAX.saturating_mul(longest).saturating_add(all.chain);
        for at in circle {
            self.finish(*at, Cost { own: rate, below: [rate, rate], whole: 0.0, rate, chain, nested })?;
        }
        Ok(())
    }

    /// How often a visit of `at` visits each node at the same place of the instance.
    fn here(&mut self, at: usize) -> Result<Here, Why> {
        let mut order = Vec::new();
        let mut state = HashMap::new();
        self.arrange(at, 0, &mut state, &mut order)?;
        let mut visits: HashMap<usize, f64> = HashMap::from([(at, 1.0)]);
        let mut chains: HashMap<usize, usize> = HashMap::new();
        let mut chain = 1;
        for node in order.iter().rev() {
            let times = visits.get(node).copied().unwrap_or(0.0);
            let length = chains.get(node).copied().unwrap_or(1);
            chain = chain.max(length);
            for edge in self.graph.nodes[*node].edges.iter().filter(|edge| matches!(edge.place, Place::Here { .. })) {
                *visits.entry(edge.to).or_default() += times;
                let longer = chains.entry(edge.to).or_insert(1);
                *longer = (*longer).max(length + 1);
            }
        }
        Ok(Here { visits, chain })
    }

    /// Orders the nodes so that each comes after all nodes to which it leads. A cycle that does not descend
    /// into the document has no such order and is refused.
    fn arrange(&mut self, at: usize, depth: usize, state: &mut HashMap<usize, bool>, order: &mut Vec<usize>) -> Result<(), Why> {
        let node = &self.graph.nodes[at];
        self.step(at, 1 + node.edges.len())?;
        too_deep(node, depth)?;
        state.insert(at, false);
        for edge in node.edges.iter().filter(|edge| matches!(edge.place, Place::Here { .. })) {
            match state.get(&edge.to) {
                Some(true) => {}
                Some(false) => {
                    return Err(node.why(
                        "it leads back to itself without going into the document, which would never end".into(),
                        "remove the `$ref`, or put it under `properties` or `items`",
                    ));
                }
                None => self.arrange(edge.to, depth + 1, state, order)?,
            }
        }
        state.insert(at, true);
        order.push(at);
        Ok(())
    }

    /// The rates that the nodes visited at one place spend on one child, for edges that leave the cycle: at a
    /// child that does not continue in the cycle, and at one that does. More than one way to continue is
    /// refused.
    fn children(&mut self, at: usize, circle: &HashSet<usize>, visits: &HashMap<usize, f64>) -> Result<(f64, f64), Why> {
        let mut keys: Vec<Option<&str>> = vec![None];
        let mut indices = vec![usize::MAX];
        for node in visits.keys() {
            for edge in &self.graph.nodes[*node].edges {
                match edge.place {
                    Place::Named(key) => keys.push(Some(key)),
                    Place::Index(index) => indices.push(index),
                    _ => {}
                }
            }
        }
        keys.sort_unstable();
        keys.dedup();
        indices.sort_unstable();
        indices.dedup();
        let (mut apart, mut beside) = (0.0_f64, 0.0_f64);
        let children = keys.into_iter().map(Child::Key).chain(indices.into_iter().map(Child::Item));
        for child in children {
            let (mut on, mut out) = (0.0, 0.0);
            for (node, times) in visits {
                let node = &self.graph.nodes[*node];
                self.step(at, 1 + node.edges.len())?;
                for edge in node.edges.iter().filter(|edge| child.goes(node, &edge.place)) {
                    match circle.contains(&edge.to) {
                        true => on += times,
                        false => out += self.of(edge.to).rate * times,
                    }
                }
            }
            if on > 1.0 {
                let what = match child {
                    Child::Key(Some(key)) => format!("the key `{key}`"),
                    Child::Key(None) => "a key".to_owned(),
                    Child::Item(_) => "an item".to_owned(),
                };
                return Err(self.graph.nodes[at].why(
                    format!(
                        "it leads back to itself on {} ways for {what}, so that a document nested {DOCUMENT_DEPTH_MAX} deep would take {} steps",
                        round(on),
                        round(on.powi(DOCUMENT_DEPTH_MAX as i32))
                    ),
                    ONCE,
                ));
            }
            match on > 0.0 {
                true => beside = beside.max(out),
                false => apart = apart.max(out),
            }
        }
        Ok((apart, beside))
    }

    /// How many nodes compiling makes. The target of a `$ref` is compiled once, unless it is marked.
    fn all_compiled(&mut self) -> Result<f64, Why> {
        let targets: Vec<usize> = self.graph.referred().collect();
        let mut sum = 0.0;
        for at in std::iter::once(0).chain(targets) {
            sum += self.compiled_from(at)?;
        }
        Ok(sum)
    }

    fn compiled_from(&mut self, at: usize) -> Result<f64, Why> {
        match self.compiled.get(&at) {
            Some(Some(known)) => return Ok(*known),
            // The validator ends such a cycle on the path that it took, and follows it again on each other
            // path.
            Some(None) => {
                return Err(self.graph.nodes[at].why(
                    "what `unevaluated...` allows leads back to it".into(),
                    "name the properties, or write `additionalProperties` where the `$ref` leads to",
                ));
            }
            None => {}
        }
        self.compiled.insert(at, None);
        let mut sum = 1.0;
        for edge in self.graph.nodes[at].edges.iter().filter(|edge| !matches!(edge.place, Place::Here { once: true })) {
            sum += self.compiled_from(edge.to)?;
        }
        self.compiled.insert(at, Some(sum));
        Ok(sum)
    }

    /// The node that causes most of the cost: the deepest one that is still too expensive.
    fn dearest(&self) -> usize {
        let most = SCHEMA_UNITS_MAX as f64 / SCHEMA_DOCUMENT_BYTES_MIN as f64;
        let mut at = 0;
        for _ in 0..SCHEMA_CHAIN_MAX {
            let next = self.graph.nodes[at].edges.iter().map(|edge| edge.to).filter(|to| self.of(*to).rate > most && *to != at);
            match next.max_by(|a, b| self.of(*a).rate.total_cmp(&self.of(*b).rate)) {
                Some(to) if self.of(to).rate <= self.of(at).rate => at = to,
                _ => break,
            }
        }
        at
    }
}

struct Here {
    visits: HashMap<usize, f64>,
    chain: usize,
}

/// One child of an instance node.
#[derive(Clone, Copy)]
enum Child<'a> {
    /// A key that some schema names, or any other.
    Key(Option<&'a str>),
    /// An item that some schema names, or any other.
    Item(usize),
}

impl Child<'_> {
    /// Whether a visit of `node` continues to this child through an edge at `place`.
    fn goes(self, node: &Node, place: &Place) -> bool {
        match (self, place) {
            (Child::Key(key), Place::Named(name)) => key == Some(*name),
            (Child::Key(key), Place::Other) => !key.is_some_and(|key| node.names(key)),
            (Child::Key(_), Place::EveryKey | Place::Name) => true,
            (Child::Item(index), Place::Index(at)) => index == *at,
            (Child::Item(index), Place::Rest) => index >= node.prefix,
            (Child::Item(_), Place::EveryItem) => true,
            _ => false,
        }
    }
}
