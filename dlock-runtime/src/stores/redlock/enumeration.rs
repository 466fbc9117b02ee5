//! Tokens grow, whichever nodes answer in whichever phase: every case is enumerated.

use super::model::{Answer, Asker, Node};
use super::round::{Reply, Round, Verdict, Win};
use crate::token::FencingToken;

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Lost,
    /// It is executed, but its answer is lost.
    AnswerLost,
    Answered,
}

const FATES: [Fate; 3] = [Fate::Lost, Fate::AnswerLost, Fate::Answered];

const TTL: u64 = 1_000;
const NOW: u64 = 1_000_000;
const TOLERANCE: u64 = NOW;

/// Every sequence of this length.
fn sequences<T: Copy>(choices: &[T], length: usize) -> Vec<Vec<T>> {
    (0..length).fold(vec![vec![]], |shorter, _| {
        let longer = |sequence: &Vec<T>| {
            let sequence = sequence.clone();
            choices.iter().map(move |choice| [&sequence[..], &[*choice]].concat())
        };
        shorter.iter().flat_map(longer).collect()
    })
}

fn asker(owner: u64) -> Asker {
    Asker { owner, round: owner, run: 1 }
}

/// Nodes with these last tokens.
fn nodes(last: &[u64]) -> Vec<Node> {
    let node = |last: &u64| {
        let mut node = Node::new(NOW, 1);
        node.greet(1, true);
        node.acquire(asker(1), TTL, *last, TOLERANCE);
        node.expire();
        node
    };
    last.iter().map(node).collect()
}

fn acquire(nodes: &mut [Node], owner: u64, proposed: u64, fates: &[Fate]) -> Verdict {
    let mut round = Round::new(nodes.len());
    for (number, (node, fate)) in nodes.iter_mut().zip(fates).enumerate() {
        if *fate == Fate::Lost {
            continue;
        }
        let answer = node.acquire(asker(owner), TTL, proposed, TOLERANCE);
        if let (Fate::Answered, Answer::Granted(token)) = (fate, answer) {
            round.hear(number, Reply::Granted(FencingToken::new(token)));
        }
    }
    round.verdict()
}

fn write_back(nodes: &mut [Node], owner: u64, win: &mut Win, fates: &[Fate]) {
    let behind = win.behind().to_vec();
    for (node, fate) in behind.iter().zip(fates).filter(|(_, fate)| **fate != Fate::Lost) {
        let stored = nodes[*node].raise(asker(owner), win.token().get());
        if stored && *fate == Fate::Answered {
            win.wrote();
        }
    }
}

/// Checks that after every hold that counts, whichever nodes answered and stored its token, the next token is larger,
/// whichever nodes answer then and however far behind the next client's clock is. Returns the number of cases.
fn holds_for(count: usize, lasts: &[u64], proposals: &[u64]) -> u64 {
    let mut cases = 0;
    for last in sequences(lasts, count) {
        for fates in sequences(&FATES, count) {
            for proposed in proposals {
                let mut before = nodes(&last);
                let Verdict::Won(win) = acquire(&mut before, 2, *proposed, &fates) else {
                    continue;
                };
                for fates in sequences(&FATES, win.behind().len()) {
                    let mut nodes = before.clone();
                    let mut win = win.clone();
                    write_back(&mut nodes, 2, &mut win, &fates);
                    if win.is_stored() {
                        cases += all_later_are_larger(&nodes, win.token().get());
                    }
                }
            }
        }
    }
    cases
}

fn all_later_are_larger(nodes: &[Node], token: u64) -> u64 {
    let mut cases = 0;
    for fates in sequences(&[Fate::Lost, Fate::Answered], nodes.len()) {
        let mut nodes = nodes.to_vec();
        nodes.iter_mut().for_each(Node::expire);
        if let Verdict::Won(later) = acquire(&mut nodes, 3, 0, &fates) {
            assert!(later.token().get() > token, "{later:?} after {token}: {nodes:?}");
            cases += 1;
        }
    }
    cases
}

#[test]
fn of_three_nodes() {
    let cases = holds_for(3, &[10, 20, 30], &[5, 15, 25, 35]);
    assert!(cases > 2_000, "{cases}");
}

#[test]
fn of_five_nodes() {
    let cases = holds_for(5, &[10, 20], &[5, 15, 25]);
    assert!(cases > 50_000, "{cases}");
}
