//! Threads (RFC 5256 §3): which message answers which. Nothing here reads anything.
//!
//! All trees are in one vector and name one another by their places, so that a thread of any depth costs no recursion.

use std::collections::HashMap;

use imap_protocol::response::search::ThreadToken;

/// What threads are made of.
#[derive(Debug, Clone, Default)]
pub(crate) struct Message {
    /// What it is called in the answer.
    pub(crate) number: u32,
    /// When it was sent, in seconds since 1970.
    pub(crate) sent: i64,
    /// When it arrived.
    pub(crate) arrived: i64,
    /// The base subject, folded.
    pub(crate) subject: String,
    /// Whether the subject says that it is a reply or a forward.
    pub(crate) is_reply: bool,
    pub(crate) message_id: Option<String>,
    /// The oldest first.
    pub(crate) references: Vec<String>,
}

/// ORDEREDSUBJECT: messages with one base subject are a thread, in which all answer the first.
pub(crate) fn by_subject(mut messages: Vec<Message>) -> Vec<ThreadToken> {
    messages.sort_by(|a, b| (&a.subject, a.sent, a.number).cmp(&(&b.subject, b.sent, b.number)));
    let mut threads: Vec<&[Message]> = messages.chunk_by(|a, b| a.subject == b.subject).collect();
    threads.sort_by_key(|thread| thread.first().map(|first| (first.sent, first.number)));
    let mut tokens = Vec::new();
    for thread in threads {
        tokens.push(ThreadToken::Open);
        for (at, message) in thread.iter().enumerate() {
            let alone = at == 0 || thread.len() == 2;
            tokens.extend((!alone).then_some(ThreadToken::Open));
            tokens.push(ThreadToken::Number(message.number));
            tokens.extend((!alone).then_some(ThreadToken::Close));
        }
        tokens.push(ThreadToken::Close);
    }
    tokens
}

/// REFERENCES: by the References of messages, then threads with one base subject together.
pub(crate) fn by_references(messages: &[Message]) -> Vec<ThreadToken> {
    let mut forest = Forest::of(messages);
    forest.prune();
    forest.sort(|forest, place| forest.sent(place));
    forest.gather_subjects();
    forest.sort(|forest, place| forest.sent(place));
    forest.tokens()
}

/// REFS: by References alone, the thread in which something came last being the last.
pub(crate) fn by_references_alone(messages: &[Message]) -> Vec<ThreadToken> {
    let mut forest = Forest::of(messages);
    forest.prune();
    forest.sort(|forest, place| forest.sent(place));
    forest.sort_roots_by_latest();
    forest.tokens()
}

/// A message in its place, or one that others speak of and that is not there.
#[derive(Debug, Default)]
struct Place {
    /// In the list of messages.
    message: Option<usize>,
    parent: Option<usize>,
    children: Vec<usize>,
}

#[derive(Debug)]
struct Forest<'a> {
    messages: &'a [Message],
    places: Vec<Place>,
    roots: Vec<usize>,
}

impl<'a> Forest<'a> {
    /// Steps 1 and 2 of RFC 5256 §3: links, and those who have no parent.
    fn of(messages: &'a [Message]) -> Self {
        let mut forest = Self { messages, places: Vec::new(), roots: Vec::new() };
        let mut by_id: HashMap<&'a str, usize> = HashMap::new();
        for (at, message) in messages.iter().enumerate() {
            let own = match message.message_id.as_deref() {
                Some(id) => {
                    let known = by_id.get(id).copied();
                    match known {
                        // A second message of this id is as one without any.
                        Some(place) if forest.places[place].message.is_some() => forest.add(Some(at)),
                        Some(place) => {
                            forest.places[place].message = Some(at);
                            place
                        }
                        None => {
                            let place = forest.add(Some(at));
                            by_id.insert(id, place);
                            place
                        }
                    }
                }
                None => forest.add(Some(at)),
            };
            let mut before = None;
            for reference in &message.references {
                let place = match by_id.get(reference.as_str()) {
                    Some(place) => *place,
                    None => {
                        let place = forest.add(None);
                        by_id.insert(reference, place);
                        place
                    }
                };
                // What is linked already stays as it is, here and against a circle.
                if let Some(before) = before
                    && forest.places[place].parent.is_none()
                {
                    forest.link(place, before);
                }
                before = Some(place);
            }
            // What a message says of itself is better than what others say of it.
            if let Some(parent) = before {
                forest.unlink(own);
                forest.link(own, parent);
            } else if !message.references.is_empty() {
                forest.unlink(own);
            }
        }
        forest.roots = (0..forest.places.len()).filter(|at| forest.places[*at].parent.is_none()).collect();
        forest
    }

    fn add(&mut self, message: Option<usize>) -> usize {
        self.places.push(Place { message, ..Place::default() });
        self.places.len() - 1
    }

    /// Makes `child` a child, unless that closed a circle.
    fn link(&mut self, child: usize, parent: usize) {
        // One that has no children is above nobody, so most links need no look at who is above whom.
        let mut above = Some(parent).filter(|_| !self.places[child].children.is_empty());
        while let Some(place) = above {
            if place == child {
                return;
            }
            above = self.places[place].parent;
        }
        if child == parent {
            return;
        }
        self.places[child].parent = Some(parent);
        self.places[parent].children.push(child);
    }

    fn unlink(&mut self, child: usize) {
        if let Some(parent) = self.places[child].parent.take() {
            self.places[parent].children.retain(|other| *other != child);
        }
    }

    /// Step 3: what is not there makes room for its children, but at the top, where it holds them together.
    fn prune(&mut self) {
        // Children before their parents.
        for place in self.downwards().into_iter().rev() {
            let children = std::mem::take(&mut self.places[place].children);
            let mut kept = Vec::with_capacity(children.len());
            for child in children {
                if self.places[child].message.is_some() {
                    kept.push(child);
                } else {
                    let promoted = std::mem::take(&mut self.places[child].children);
                    for grandchild in &promoted {
                        self.places[*grandchild].parent = Some(place);
                    }
                    kept.extend(promoted);
                }
            }
            self.places[place].children = kept;
        }
        let mut roots = Vec::with_capacity(self.roots.len());
        for root in std::mem::take(&mut self.roots) {
            match (&self.places[root].message, &self.places[root].children[..]) {
                (Some(_), _) | (None, [_, _, ..]) => roots.push(root),
                (None, [only]) => {
                    let only = *only;
                    self.places[only].parent = None;
                    roots.push(only);
                }
                (None, []) => {}
            }
        }
        self.roots = roots;
    }

    /// All places from the roots down, each parent before its children.
    fn downwards(&self) -> Vec<usize> {
        let mut order = self.roots.clone();
        let mut at = 0;
        while at < order.len() {
            order.extend(&self.places[order[at]].children);
            at += 1;
        }
        order
    }

    /// When a message was sent; of one that is not there, when the first of its children was.
    fn sent(&self, place: usize) -> (i64, u32) {
        let shown = self.shown(place);
        shown.map(|message| (message.sent, message.number)).unwrap_or_default()
    }

    /// The message, or the first child of one that is not there.
    fn shown(&self, place: usize) -> Option<&'a Message> {
        let of = |place: usize| self.places[place].message.map(|at| &self.messages[at]);
        of(place).or_else(|| self.places[place].children.first().and_then(|child| of(*child)))
    }

    /// Steps 4 and 6: siblings in order, the lowest first.
    fn sort<K: Ord>(&mut self, key: impl Fn(&Self, usize) -> K) {
        for place in self.downwards().into_iter().rev() {
            let mut children = std::mem::take(&mut self.places[place].children);
            children.sort_by_cached_key(|child| key(self, *child));
            self.places[place].children = children;
        }
        let mut roots = std::mem::take(&mut self.roots);
        roots.sort_by_cached_key(|root| key(self, *root));
        self.roots = roots;
    }

    fn sort_roots_by_latest(&mut self) {
        let mut latest: Vec<(i64, u32)> = vec![Default::default(); self.places.len()];
        for place in self.downwards().into_iter().rev() {
            let own =
                self.places[place].message.map(|at| (self.messages[at].arrived, self.messages[at].number));
            let below = self.places[place].children.iter().map(|child| latest[*child]).max();
            latest[place] = own.max(below).unwrap_or_default();
        }
        self.roots.sort_by_key(|root| latest[*root]);
    }

    /// Step 5: threads with one base subject come together.
    fn gather_subjects(&mut self) {
        let messages = self.messages;
        let subject_of = |forest: &Self, root: usize| -> Option<(&'a str, bool)> {
            let message =
                forest.places[root].message.map(|at| &messages[at]).or_else(|| forest.shown(root))?;
            (!message.subject.is_empty()).then_some((message.subject.as_str(), message.is_reply))
        };
        let mut table: HashMap<&'a str, usize> = HashMap::new();
        for root in self.roots.clone() {
            let Some((subject, is_reply)) = subject_of(self, root) else { continue };
            let Some(&held) = table.get(subject) else {
                table.insert(subject, root);
                continue;
            };
            let held_is_there = self.places[held].message.is_some();
            let held_is_reply = subject_of(self, held).is_some_and(|(_, is_reply)| is_reply);
            let is_there = self.places[root].message.is_some();
            if held_is_there && (!is_there || (held_is_reply && !is_reply)) {
                table.insert(subject, root);
            }
        }
        let mut gone = vec![false; self.places.len()];
        let mut made = Vec::new();
        for root in self.roots.clone() {
            let Some((subject, is_reply)) = subject_of(self, root) else { continue };
            let Some(&held) = table.get(subject) else { continue };
            if held == root {
                continue;
            }
            let held_is_reply = subject_of(self, held).is_some_and(|(_, is_reply)| is_reply);
            match (self.places[held].message.is_some(), self.places[root].message.is_some()) {
                (false, false) => {
                    for child in std::mem::take(&mut self.places[root].children) {
                        self.places[child].parent = None;
                        self.link(child, held);
                    }
                }
                (false, true) => self.link(root, held),
                (true, true) if is_reply && !held_is_reply => self.link(root, held),
                _ => {
                    // Neither answers the other: both answer one that is not there.
                    let above = self.add(None);
                    gone.push(false);
                    made.push(above);
                    self.link(held, above);
                    self.link(root, above);
                    gone[held] = true;
                    table.insert(subject, above);
                }
            }
            gone[root] = true;
        }
        self.roots.extend(made);
        self.roots.retain(|root| !gone[*root]);
    }

    fn tokens(&self) -> Vec<ThreadToken> {
        enum Step {
            Open(usize),
            Go(usize),
            Close,
        }
        let mut tokens = Vec::new();
        let mut steps: Vec<Step> = self.roots.iter().rev().map(|root| Step::Open(*root)).collect();
        while let Some(step) = steps.pop() {
            match step {
                Step::Open(place) => {
                    tokens.push(ThreadToken::Open);
                    steps.extend([Step::Close, Step::Go(place)]);
                }
                Step::Go(place) => {
                    let Place { message, children, .. } = &self.places[place];
                    tokens.extend(message.map(|at| ThreadToken::Number(self.messages[at].number)));
                    match &children[..] {
                        // An only answer stands behind what it answers.
                        [only] if message.is_some() => steps.push(Step::Go(*only)),
                        children => steps.extend(children.iter().rev().map(|child| Step::Open(*child))),
                    }
                }
                Step::Close => tokens.push(ThreadToken::Close),
            }
        }
        tokens
    }
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;

    use super::*;

    /// `number subject id references…`; the number is the date too.
    fn messages(text: &str) -> Vec<Message> {
        let message = |line: &str| {
            let mut words = line.split_whitespace();
            let number: u32 = words.next()?.parse().ok()?;
            let subject = words.next()?;
            let is_reply = subject.starts_with("re:");
            Some(Message {
                number,
                sent: i64::from(number),
                arrived: i64::from(number),
                subject: subject.trim_start_matches("re:").trim_matches('-').to_owned(),
                is_reply,
                message_id: words.next().filter(|id| *id != "-").map(str::to_owned),
                references: words.map(str::to_owned).collect(),
            })
        };
        text.lines().filter_map(message).collect()
    }

    fn written(tokens: &[ThreadToken]) -> String {
        let mut out = BytesMut::new();
        imap_protocol::response::search::thread(&mut out, tokens);
        String::from_utf8_lossy(&out).trim().to_owned()
    }

    #[test]
    fn references() {
        let check = |text: &str, expected: &str| {
            assert_eq!(written(&by_references(&messages(text))), format!("* THREAD{expected}"), "{text}");
        };
        check("", "");
        check("1 a x", " (1)");
        check("1 a x\n2 re:a y x\n3 re:a z x y", " (1 2 3)");
        check("1 a x\n2 re:a y x\n3 re:a z x", " (1 (2)(3))");
        // The one in the middle is not there.
        check("1 a x\n3 re:a z x y", " (1 3)");
        // The first is not there, and holds two together.
        check("2 re:a y x\n3 re:a z x", " ((2)(3))");
        check("2 re:a y x", " (2)");
        // Who comes later says better who was answered.
        check("1 a x\n2 b y\n3 c z x y", " (1 2 3)");
        check("1 a x\n2 b y y2\n3 c z x y", " (1)(2 3)");
        // Circles are not closed.
        check("1 a x y\n2 b y x", " (2 1)");
        check("1 a x x", " (1)");
        // Two of one id are two.
        check("1 - x\n2 - x\n3 - z x", " (1 3)(2)");
        // By subject: a reply under what it answers, else side by side.
        check("1 a x\n2 re:a y", " (1 2)");
        check("1 re:a x\n2 re:a y", " ((1)(2))");
        check("1 a x\n2 a y", " ((1)(2))");
        check("1 re:a x\n2 a y", " (2 1)");
        check("1 a x\n2 re:a y\n3 re:a z", " (1 (2)(3))");
        check("1 - x\n2 - y", " (1)(2)");
        check("2 re:a y x\n3 re:a z x\n4 re:a w", " ((2)(3)(4))");
        check("2 re:a y x\n3 re:a z x\n4 re:a v u\n5 re:a w u", " ((2)(3)(4)(5))");
    }

    #[test]
    fn references_alone() {
        let check = |text: &str, expected: &str| {
            assert_eq!(
                written(&by_references_alone(&messages(text))),
                format!("* THREAD{expected}"),
                "{text}"
            );
        };
        check("1 a x\n2 a y\n3 re:a z x", " (2)(1 3)");
        check("1 a x\n2 re:a y", " (1)(2)");
    }

    #[test]
    fn ordered_subject() {
        let check = |text: &str, expected: &str| {
            assert_eq!(written(&by_subject(messages(text))), format!("* THREAD{expected}"), "{text}");
        };
        check("1 a x\n2 b y\n3 re:a z\n4 re:a w", " (1 (3)(4))(2)");
        check("1 b x\n2 a y\n3 re:b z", " (1 3)(2)");
    }

    /// A thread as deep as there are messages takes no stack.
    #[test]
    fn depth_is_no_recursion() {
        let count = 50_000_u32;
        let messages: Vec<Message> = (1..=count)
            .map(|number| Message {
                number,
                sent: i64::from(number),
                message_id: Some(format!("m{number}")),
                references: (number > 1).then(|| format!("m{}", number - 1)).into_iter().collect(),
                ..Message::default()
            })
            .collect();
        for tokens in [by_references(&messages), by_references_alone(&messages)] {
            let text = written(&tokens);
            assert!(text.starts_with("* THREAD (1 2 3 ") && text.ends_with(" 50000)"));
        }
    }
}
