//! Sends the requests over one connection: those that are ready together go out together.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::{Cmd, ErrorKind, FromRedisValue, RedisError, RedisResult, ServerErrorKind, Value};

use super::failure::{Failed, Hint, is_broken};
use super::link::{Link, Session};
use super::slots::Slot;
use super::step::{Draws, Reason, Step, command};
use crate::error::BackendError;
use crate::stores::shared::batcher::Carrier;

/// The requests over one connection, which is replaced when it breaks.
pub(in crate::stores) struct Requests {
    link: Arc<Link>,
    drawn: Mutex<Drawn>,
}

/// What was drawn over the present connection, for each slot.
#[derive(Default)]
struct Drawn {
    generation: u64,
    slots: HashMap<Option<Slot>, Draw>,
}

#[derive(Clone, Copy)]
struct Draw {
    largest: u64,
    latest: Instant,
    /// When the counter was last raised to the server's time.
    raised: Instant,
}

/// After a pause of this length, or this long after the last time, a draw raises the counter again: the slot may have
/// been at another server meanwhile, and other versions of dlock draw the time.
const PAUSE: Duration = Duration::from_secs(1);
const LONGEST_WITHOUT_RAISE: Duration = Duration::from_mins(10);

/// A server's answer to a request.
#[derive(Debug)]
pub(in crate::stores) struct Answered {
    pub(in crate::stores) value: Value,
    /// The request was sent twice. The first copy may be executed at any later time.
    pub(in crate::stores) was_resent: bool,
}

pub(in crate::stores) type Answer = Result<Answered, Failed>;

/// Reads an answer that has a form of its own.
pub(in crate::stores) fn read<T: FromRedisValue>(value: Value) -> Result<T, BackendError> {
    T::from_redis_value(value).map_err(|error| {
        BackendError::permanent(format!("redis answered in an unknown form: {error}"))
    })
}

impl Requests {
    pub(in crate::stores) fn new(link: Arc<Link>) -> Self {
        Self { link, drawn: Mutex::default() }
    }

    pub(super) fn link(&self) -> &Arc<Link> {
        &self.link
    }

    /// Sends one request over this connection.
    pub(in crate::stores) async fn send_in(&self, session: Session, step: &Step) -> Answer {
        let generation = session.generation;
        let answer = self.execute(session, std::slice::from_ref(step)).await;
        let mut answers = answer.map_err(|error| self.link.failed(generation, error))?;
        answers.pop().unwrap_or_else(|| Err(self.other_connection()))
    }

    /// Sends one request over this connection that the server is asked to answer for a slot that is being moved to
    /// it.
    pub(super) async fn ask_in(&self, session: Session, step: &Step) -> Answer {
        let Session { generation, mut connection } = session;
        let failed = |error| self.link.failed(generation, error);
        let draws = self.draws_of(generation, step);
        let command = command(&[step], draws);
        let mut reply = ask(&mut connection, &command).await.map_err(failed)?;
        if is_unknown_script(&reply) {
            step.source.script().load_async(&mut connection).await.map_err(failed)?;
            reply = ask(&mut connection, &command).await.map_err(failed)?;
        }
        let mut answer = [None];
        let steps = std::slice::from_ref(step);
        self.take_reply(generation, steps, &[0], draws.reason, reply, &mut answer);
        let [answer] = answer;
        answer.unwrap_or_else(|| Err(self.other_connection()))
    }

    /// Sends these requests. Those that may be repeated are sent once more, together, if the connection turns out to
    /// be broken or to lead to a server that is no longer the master.
    async fn send(&self, steps: &[Step]) -> Vec<Answer> {
        let session = match self.link.session().await {
            Ok(session) => session,
            Err(error) => return steps.iter().map(|_| Err(error.clone().into())).collect(),
        };
        let generation = session.generation;
        let mut answers = match self.execute(session, steps).await {
            Ok(answers) => answers,
            Err(error) => {
                let is_timeout = error.is_timeout();
                let failed = self.link.failed(generation, error);
                let answers = steps.iter().map(|_| Err(failed.clone())).collect();
                if is_timeout {
                    return answers;
                }
                answers
            }
        };
        let is_repeated = |(step, answer): (&Step, &Answer)| {
            let is_broken = answer.as_ref().is_err_and(|failed| failed.hint == Hint::Elsewhere);
            is_broken && step.is_repeatable && step.only_over.is_none()
        };
        let again = steps.iter().zip(&answers).enumerate();
        let again: Vec<_> = again.filter(|(_, one)| is_repeated(*one)).map(|(at, _)| at).collect();
        if !again.is_empty() {
            let repeated: Vec<_> = again.iter().map(|at| steps[*at].clone()).collect();
            for (at, answer) in again.into_iter().zip(self.send_again(&repeated).await) {
                answers[at] = answer;
            }
        }
        answers
    }

    /// Sends requests once more. Their first copies may have been executed, or may be executed at any later time.
    async fn send_again(&self, steps: &[Step]) -> Vec<Answer> {
        let answers = match self.link.session().await {
            Ok(session) => {
                let generation = session.generation;
                let answers = self.execute(session, steps).await;
                answers.unwrap_or_else(|error| {
                    let failed = self.link.failed(generation, error);
                    steps.iter().map(|_| Err(failed.clone())).collect()
                })
            }
            Err(error) => steps.iter().map(|_| Err(error.clone().into())).collect(),
        };
        let answers = answers.into_iter().map(|answer| match answer {
            Ok(answered) => Ok(Answered { was_resent: true, ..answered }),
            Err(failed) => Err(failed.maybe_sent()),
        });
        answers.collect()
    }

    /// Sends these requests over one connection. An error means that the connection failed.
    async fn execute(&self, session: Session, steps: &[Step]) -> RedisResult<Vec<Answer>> {
        let Session { generation, mut connection } = session;
        let calls = calls(steps, generation);
        let mut answers: Vec<Option<Answer>> = steps.iter().map(|_| None).collect();
        if calls.is_empty() {
            return Ok(steps.iter().map(|_| Err(self.other_connection())).collect());
        }
        let draws: Vec<_> =
            calls.iter().map(|call| self.draws_of(generation, &steps[call[0]])).collect();
        let commands =
            calls.iter().zip(&draws).map(|(call, draws)| call_command(steps, call, *draws));
        let mut replies = invoke(&mut connection, commands.collect()).await?;
        for ((call, draws), reply) in calls.iter().zip(&draws).zip(&mut replies) {
            if is_unknown_script(reply) {
                let command = call_command(steps, call, *draws);
                let answer = load_and_call(&mut connection, &steps[call[0]], &command).await?;
                *reply = answer.unwrap_or_else(|| std::mem::take(reply));
            } else if is_forbidden(reply) && call.len() > 1 {
                // A name that the user may not access forbids the whole call, and nothing of it was executed.
                *reply = Value::Array(one_by_one(&mut connection, steps, call, *draws).await?);
            }
        }
        for ((call, draws), reply) in calls.iter().zip(draws).zip(replies) {
            self.take_reply(generation, steps, call, draws.reason, reply, &mut answers);
        }
        let missing = || Err(self.other_connection());
        Ok(answers.into_iter().map(|answer| answer.unwrap_or_else(missing)).collect())
    }

    /// Distributes the reply to one call.
    fn take_reply(
        &self,
        generation: u64,
        steps: &[Step],
        call: &[usize],
        reason: Reason,
        reply: Value,
        answers: &mut [Option<Answer>],
    ) {
        let first = &steps[call[0]];
        let error = match reply {
            Value::ServerError(error) => RedisError::from(error),
            Value::Array(elements) if first.source.is_shared => {
                self.note_drawn(generation, first, reason, &elements);
                let mut elements = elements.into_iter();
                for at in call {
                    answers[*at] = Some(self.element(elements.next()));
                }
                return;
            }
            _ if first.source.is_shared => {
                let problem = "a script answered in an unknown form";
                RedisError::from((ErrorKind::UnexpectedReturnType, problem))
            }
            value => {
                if let Value::Array(elements) = &value {
                    self.note_drawn(generation, first, reason, elements);
                }
                answers[call[0]] = Some(Ok(Answered { value, was_resent: false }));
                return;
            }
        };
        let failed = self.link.failed(generation, error);
        for at in call {
            answers[*at] = Some(Err(failed.clone()));
        }
    }

    /// The answer to one request of a call. A text is the error of that request alone.
    fn element(&self, element: Option<Value>) -> Answer {
        let error = match element {
            Some(Value::ServerError(error)) => {
                return Err(Failed::new(self.link.address(), "failed", error.into()));
            }
            Some(Value::BulkString(text)) => {
                let text = String::from_utf8_lossy(&text).into_owned();
                (ErrorKind::Client, "a script failed", text)
            }
            Some(value) => return Ok(Answered { value, was_resent: false }),
            None => (ErrorKind::Client, "a script failed", "it answered too little".to_owned()),
        };
        Err(Failed::new(self.link.address(), "failed", error.into()))
    }

    fn other_connection(&self) -> Failed {
        let problem = format!("redis at {}: the connection was replaced", self.link.address());
        BackendError::transient(problem).not_sent().into()
    }

    fn draws_of(&self, generation: u64, step: &Step) -> Draws {
        if step.header.draws() { self.draws(generation, step.slot) } else { Draws::default() }
    }

    fn draws(&self, generation: u64, slot: Option<Slot>) -> Draws {
        let drawn = self.drawn();
        let known = if drawn.generation == generation { drawn.slots.get(&slot) } else { None };
        let Some(known) = known else { return Draws { largest: 0, reason: Reason::First } };
        let is_due =
            known.latest.elapsed() > PAUSE || known.raised.elapsed() > LONGEST_WITHOUT_RAISE;
        let reason = if is_due { Reason::InAWhile } else { Reason::None };
        Draws { largest: known.largest, reason }
    }

    /// Notes the tokens of a call that was sent for this reason. A call that granted nothing has drawn nothing.
    fn note_drawn(&self, generation: u64, step: &Step, reason: Reason, elements: &[Value]) {
        let Some(largest) = largest_token(step, elements) else { return };
        let mut drawn = self.drawn();
        if drawn.generation != generation {
            *drawn = Drawn { generation, slots: HashMap::new() };
        }
        let now = Instant::now();
        let known =
            drawn.slots.entry(step.slot).or_insert(Draw { largest, latest: now, raised: now });
        known.largest = known.largest.max(largest);
        known.latest = now;
        if reason != Reason::None {
            known.raised = now;
        }
    }

    fn drawn(&self) -> MutexGuard<'_, Drawn> {
        self.drawn.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Carrier for Requests {
    type Request = Step;
    type Answer = Answer;

    const MOST: usize = 128;
    const MOST_BYTES: usize = 64 * 1024;
    const ENOUGH: usize = 16;
    const MOST_IN_FLIGHT: usize = 4;

    fn limit(&self) -> Duration {
        let limits = self.link.limits();
        2 * (limits.connect + limits.response)
    }

    fn size(step: &Step) -> usize {
        step.size()
    }

    async fn carry_one(&self, step: Step) -> Answer {
        let mut answers = self.send(std::slice::from_ref(&step)).await;
        answers.pop().unwrap_or_else(|| Err(self.other_connection()))
    }

    async fn carry(&self, steps: Vec<Step>) -> Vec<Answer> {
        self.send(&steps).await
    }

    fn failed(error: BackendError) -> Answer {
        Err(error.into())
    }
}

/// The token in an answer of `acquire.lua` to a request that was granted: a positive number, or one of two numbers.
pub(super) fn granted_token(value: &Value) -> Option<u64> {
    match value {
        Value::Int(token @ 1..) => Some(token.unsigned_abs()),
        Value::Array(words) => match words[..] {
            [Value::Int(token @ 1..), Value::Int(1)] => Some(token.unsigned_abs()),
            _ => None,
        },
        _ => None,
    }
}

/// The largest token in an answer: of the locks that were granted, or one of those that `enter.lua` answers behind a 1.
fn largest_token(step: &Step, elements: &[Value]) -> Option<u64> {
    if !step.header.draws() {
        return None;
    }
    if step.source.is_shared {
        return elements.iter().filter_map(granted_token).max();
    }
    let [Value::Int(1), .., Value::Array(tokens)] = elements else { return None };
    let tokens = tokens.iter().filter_map(|value| match value {
        Value::Int(number @ 1..) => Some(number.unsigned_abs()),
        Value::BulkString(digits) => std::str::from_utf8(digits).ok()?.parse().ok(),
        _ => None,
    });
    tokens.max()
}

/// The calls that the requests make over this connection: the indexes of the requests of each.
fn calls(steps: &[Step], generation: u64) -> Vec<Vec<usize>> {
    let mut calls: Vec<Vec<usize>> = vec![];
    for (at, step) in steps.iter().enumerate() {
        if step.only_over.is_some_and(|only| only != generation) {
            continue;
        }
        match calls.iter_mut().find(|call| steps[call[0]].shares_call_with(step)) {
            Some(call) => call.push(at),
            None => calls.push(vec![at]),
        }
    }
    calls
}

/// The command that executes these requests in one call.
fn call_command(steps: &[Step], call: &[usize], draws: Draws) -> Cmd {
    let steps: Vec<_> = call.iter().map(|at| &steps[*at]).collect();
    command(&steps, draws)
}

/// Sends the commands in one message.
async fn invoke(
    connection: &mut MultiplexedConnection,
    commands: Vec<Cmd>,
) -> RedisResult<Vec<Value>> {
    if let [one] = &commands[..] {
        return Ok(vec![connection.req_packed_command(one).await?]);
    }
    let (mut all, count) = (redis::pipe(), commands.len());
    for command in commands {
        all.add_command(command);
    }
    connection.req_packed_commands(&all, 0, count).await
}

/// Sends a command after `ASKING`.
async fn ask(connection: &mut MultiplexedConnection, command: &Cmd) -> RedisResult<Value> {
    let mut both = redis::pipe();
    both.cmd("ASKING").add_command(command.clone());
    let answers = connection.req_packed_commands(&both, 0, 2).await?;
    answers.into_iter().nth(1).ok_or_else(super::topology::closed)
}

/// Loads a script that the server does not know, and calls it again. `None`: the server refuses to load it.
async fn load_and_call(
    connection: &mut MultiplexedConnection,
    step: &Step,
    command: &Cmd,
) -> RedisResult<Option<Value>> {
    match step.source.script().load_async(connection).await {
        Ok(_) => connection.req_packed_command(command).await.map(Some),
        Err(error) if is_broken(&error) => Err(error),
        Err(_) => Ok(None),
    }
}

/// Sends each request of a call on its own. The answers are in their order.
async fn one_by_one(
    connection: &mut MultiplexedConnection,
    steps: &[Step],
    call: &[usize],
    draws: Draws,
) -> RedisResult<Vec<Value>> {
    let commands = call.iter().map(|at| call_command(steps, &[*at], draws));
    let replies = invoke(connection, commands.collect()).await?;
    let elements = replies.into_iter().map(|reply| match reply {
        Value::Array(mut elements) => elements.pop().unwrap_or(Value::Nil),
        other => other,
    });
    Ok(elements.collect())
}

fn is_unknown_script(reply: &Value) -> bool {
    matches!(reply, Value::ServerError(error) if error.kind() == Some(ServerErrorKind::NoScript))
}

fn is_forbidden(reply: &Value) -> bool {
    matches!(reply, Value::ServerError(error) if error.code() == "NOPERM")
}
