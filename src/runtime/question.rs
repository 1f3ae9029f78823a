//! A question: one prompt whose answer is checked, and asked for again, as that of a step is.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use serde_json::{Value, json};
use tokio::task::spawn_blocking;
use tokio::time::Instant;

use crate::diagnostics::Diagnostics;
use crate::guard::SharedBudget;
use crate::pipeline::{AnswerCheck, ItemState, Overrides};
use crate::router::Request;
use crate::types::{
    AttemptLog, Class, Failure, NanoUsd, Part, Priority, RequestError, Response, ResponseFormat, StreamEvent,
};

use super::pointsman::Pointsman;

/// The only step of the pipeline of a question.
const STEP: usize = 0;

/// One prompt, and what its answer has to be.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Question {
    /// The prompt. It is a text, not a template.
    pub text: String,
    /// The system prompt. It is a text, not a template.
    pub system: Option<String>,
    /// Files for the model, in front of the text.
    pub attachments: Vec<Part>,
    /// The settings of the answer. Its prompts are not used.
    pub settings: Overrides,
    /// How long it may take, with all attempts [default: the deadline of a step].
    pub deadline: Option<Duration>,
    /// The budget from which it spends, if any.
    pub budget: Option<Arc<SharedBudget>>,
}

/// The valid answer to a question.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct QuestionAnswer {
    /// The answer: a text, one of the choices, or JSON that matches the schema.
    pub value: Value,
    /// The response that contained it.
    pub response: Response,
    /// The attempts of all requests, that of the answer last: an invalid answer is asked for again.
    pub attempts: AttemptLog,
    /// What all responses cost; `None` if a price or the usage is unknown.
    pub cost: Option<NanoUsd>,
}

/// Why a question has no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum QuestionError {
    /// Its settings are invalid. Nothing was sent.
    #[error(transparent)]
    Diagnostics(#[from] Diagnostics),
    /// Its request failed, or the answer was not valid.
    #[error(transparent)]
    Request(Box<RequestError>),
}

impl Question {
    /// Creates a question.
    pub fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), ..Self::default() }
    }

    /// Returns the settings of the pipeline: its prompts are fields of its item, so that nothing in them is a template.
    fn overrides(&self) -> Overrides {
        let mut overrides = self.settings.clone();
        overrides.prompt = Some("{{ item.text }}".to_owned());
        overrides.system = self.system.as_ref().map(|_| "{{ item.system }}".to_owned());
        overrides
    }
}

impl Pointsman {
    /// Asks a question. `on_text` gets each piece of an answer that is a text, as it arrives. An error after the first piece
    /// means that the answer is incomplete.
    ///
    /// ```no_run
    /// # async fn example(pointsman: pointsman::Pointsman) -> Result<(), Box<dyn std::error::Error>> {
    /// use pointsman::Question;
    ///
    /// let answer = pointsman.ask(Question::new("Say hello."), |piece| print!("{piece}")).await?;
    /// println!("\n{} answered.", answer.response.target);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// If its settings are invalid, no target answered, or no answer was valid.
    pub async fn ask(
        &self,
        question: Question,
        mut on_text: impl FnMut(&str),
    ) -> Result<QuestionAnswer, QuestionError> {
        let pipeline = Arc::new(self.pipeline_with(None, &question.overrides())?);
        let item = json!({ "text": question.text, "system": question.system });
        let mut state = ItemState::new(pipeline, &item);
        let Some(request) = state.ready_steps().into_iter().next() else {
            let failure = state.finish().error.map(|(_, failure)| failure);
            let failure = failure.unwrap_or_else(|| Failure::new(Class::Internal, "nothing was rendered"));
            return Err(QuestionError::Request(Box::new(failure.into())));
        };
        let deadline = Instant::now() + question.deadline.unwrap_or(request.deadline);
        let mut prompt = match question.attachments.is_empty() {
            true => request.prompt,
            false => state.attach(STEP, question.attachments).unwrap_or(request.prompt),
        };
        let mut attempts = AttemptLog::default();
        let mut cost = Some(NanoUsd(0));
        loop {
            let is_text = prompt.response_format == ResponseFormat::Text;
            let mut sent = Request::from_shared(request.route.clone(), prompt)
                .with_priority(Priority::Interactive)
                .with_deadline_at(deadline);
            if let Some(budget) = &question.budget {
                sent = sent.with_budget(budget.clone());
            }
            let sent = if is_text { self.read(sent, &mut on_text).await } else { self.send(sent).await };
            let response = match sent {
                Ok(response) => response,
                Err(error) => return Err(QuestionError::Request(after(attempts, error))),
            };
            attempts.0.extend(response.attempts.0.iter().cloned());
            cost = cost.zip(response.cost).map(|(all, one)| NanoUsd(all.0.saturating_add(one.0)));
            let (checked_state, check) = check(state, response.text().to_owned()).await?;
            state = checked_state;
            match check {
                AnswerCheck::Accepted => {
                    let value = state.answer(STEP).cloned().unwrap_or_default();
                    return Ok(QuestionAnswer { value, response, attempts, cost });
                }
                AnswerCheck::Retry(next) => prompt = next,
                AnswerCheck::Failed(failure) => {
                    return Err(QuestionError::Request(after(attempts, Box::new(failure.into()))));
                }
            }
        }
    }

    /// Sends a request, and passes on the pieces of its answer.
    async fn read(
        &self,
        request: Request,
        on_text: &mut impl FnMut(&str),
    ) -> Result<Response, Box<RequestError>> {
        let mut stream = self.stream(request);
        while let Some(event) = stream.next().await {
            match event? {
                StreamEvent::Text(text) => on_text(&text),
                StreamEvent::Finished(response) => return Ok(*response),
                StreamEvent::Started { .. } | StreamEvent::Reasoning(_) | StreamEvent::ToolCall(_) => {}
            }
        }
        Err(Box::new(Failure::new(Class::Internal, "the stream ended without its answer").into()))
    }
}

/// Validates a response on a thread of its own: the schema of a large answer takes long.
async fn check(mut state: ItemState, text: String) -> Result<(ItemState, AnswerCheck), QuestionError> {
    let checked = spawn_blocking(move || {
        let check = state.record_response(STEP, &text);
        (state, check)
    });
    checked.await.map_err(|_| {
        let failure = Failure::new(Class::Internal, "the validation of the answer panicked");
        QuestionError::Request(Box::new(failure.into()))
    })
}

/// Returns an error whose attempt log begins with earlier attempts.
fn after(mut earlier: AttemptLog, mut error: Box<RequestError>) -> Box<RequestError> {
    earlier.0.append(&mut error.attempts.0);
    error.attempts = earlier;
    error
}
