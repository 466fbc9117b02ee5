//! Sends the requests over one connection: those that are ready together go out together.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::{Cmd, ErrorKind, FromRedisValue, RedisError, RedisResult, ServerErrorKind, Value};

use super::failure::{Failed, is_broken};
use super::link::{Link, Session};
use super::slots::Slot;
use super::step::{Draws, Header, Step, command};
use crate::error::BackendError;
use crate::stores::shared::batcher::Carrier;

/// The requests over one connection, which is replaced when it breaks.
pub(in crate::stores) struct Requests {
    link: Arc<Link>,
    drawn: Mutex<Drawn>,
}

/// The largest token that was drawn over the present connection, for each slot.
#[derive(Default)]
struct Drawn {
    generation: u64,
    largest: HashMap<Option<Slot>, u64>,
}

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
        let mut both = redis::pipe();
        both.cmd("ASKING").add_command(self.command(generation, &[step]));
        let answers = connection.req_packed_commands(&both, 0, 2).await;
        let answer = answers.and_then(|mut answers| {
            answers.pop().ok_or_else(super::topology::closed)?.extract_error()
        });
        let reply = answer.map_err(|error| self.link.failed(generation, error))?;
        let mut answer = [None];
        let steps = std::slice::from_ref(step);
        self.take_reply(generation, steps, &[0], reply, &mut answer);
        let [answer] = answer;
        answer.unwrap_or_else(|| Err(self.other_connection()))
    }

    /// Sends these requests. Those that may be repeated are sent again if the connection turns out to be broken.
    async fn send(&self, steps: &[Step]) -> Vec<Answer> {
        let session = match self.link.session().await {
            Ok(session) => session,
            Err(error) => return steps.iter().map(|_| Err(error.clone().into())).collect(),
        };
        let generation = session.generation;
        let broken = match self.execute(session, steps).await {
            Ok(answers) => return answers,
            Err(error) => error,
        };
        let is_repeated = is_broken(&broken) && !broken.is_timeout();
        let failed = self.link.failed(generation, broken);
        let repeatable =
            |step: &Step| is_repeated && step.is_repeatable && step.only_over.is_none();
        if !steps.iter().any(repeatable) {
            return steps.iter().map(|_| Err(failed.clone())).collect();
        }
        self.send_again(steps, &failed, repeatable).await
    }

    async fn send_again(
        &self,
        steps: &[Step],
        failed: &Failed,
        repeatable: impl Fn(&Step) -> bool,
    ) -> Vec<Answer> {
        let mut answers = Vec::with_capacity(steps.len());
        for step in steps {
            if !repeatable(step) {
                answers.push(Err(failed.clone()));
                continue;
            }
            let answer = match self.link.session().await {
                Ok(session) => self.send_in(session, step).await,
                Err(error) => Err(error.into()),
            };
            // The first copy may have been executed, or may be executed at any later time.
            let answer = answer.map(|answered| Answered { was_resent: true, ..answered });
            answers.push(answer.map_err(Failed::maybe_sent));
        }
        answers
    }

    /// Sends these requests over one connection. An error means that the connection failed.
    async fn execute(&self, session: Session, steps: &[Step]) -> RedisResult<Vec<Answer>> {
        let Session { generation, mut connection } = session;
        let calls = calls(steps, generation);
        let mut answers: Vec<Option<Answer>> = steps.iter().map(|_| None).collect();
        if calls.is_empty() {
            return Ok(steps.iter().map(|_| Err(self.other_connection())).collect());
        }
        let commands: Vec<_> =
            calls.iter().map(|call| self.call_command(generation, steps, call)).collect();
        let mut replies = invoke(&mut connection, commands).await?;
        for (call, reply) in calls.iter().zip(&mut replies) {
            if is_unknown_script(reply) {
                steps[call[0]].source.script().load_async(&mut connection).await?;
                let command = self.call_command(generation, steps, call);
                *reply = connection.req_packed_command(&command).await?;
            }
        }
        for (call, reply) in calls.iter().zip(replies) {
            self.take_reply(generation, steps, call, reply, &mut answers);
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
        reply: Value,
        answers: &mut [Option<Answer>],
    ) {
        let first = &steps[call[0]];
        let error = match reply {
            Value::ServerError(error) => RedisError::from(error),
            Value::Array(elements) if first.source.is_shared => {
                self.note_drawn(generation, first, &elements);
                let mut elements = elements.into_iter();
                for at in call {
                    answers[*at] = Some(self.element(elements.next()));
                }
                return;
            }
            value => {
                if let Value::Array(elements) = &value {
                    self.note_drawn(generation, first, elements);
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

    fn call_command(&self, generation: u64, steps: &[Step], call: &[usize]) -> Cmd {
        let steps: Vec<_> = call.iter().map(|at| &steps[*at]).collect();
        self.command(generation, &steps)
    }

    fn command(&self, generation: u64, steps: &[&Step]) -> Cmd {
        let draws = match &steps[0].header {
            Header::Tokens(_) => self.draws(generation, steps[0].slot),
            _ => Draws::default(),
        };
        command(steps, draws)
    }

    fn draws(&self, generation: u64, slot: Option<Slot>) -> Draws {
        let drawn = self.drawn();
        let known = if drawn.generation == generation { drawn.largest.get(&slot) } else { None };
        Draws { largest: known.copied().unwrap_or(0), is_first: known.is_none() }
    }

    /// Notes the tokens in an answer: numbers, or those in its last element.
    fn note_drawn(&self, generation: u64, step: &Step, elements: &[Value]) {
        if !matches!(step.header, Header::Tokens(_)) {
            return;
        }
        let numbers = match elements.last() {
            Some(Value::Array(tokens)) if !step.source.is_shared => tokens,
            _ => elements,
        };
        let tokens = numbers.iter().filter_map(|value| match value {
            Value::Int(number) => u64::try_from(*number).ok(),
            _ => None,
        });
        let largest = tokens.max().unwrap_or(0);
        let mut drawn = self.drawn();
        if drawn.generation != generation {
            *drawn = Drawn { generation, largest: HashMap::new() };
        }
        let known = drawn.largest.entry(step.slot).or_default();
        *known = largest.max(*known);
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

fn is_unknown_script(reply: &Value) -> bool {
    matches!(reply, Value::ServerError(error) if error.kind() == Some(ServerErrorKind::NoScript))
}
