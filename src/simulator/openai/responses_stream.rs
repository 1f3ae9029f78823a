//! Streams of OpenAI's responses. Each event has a name and a number, and there is no `[DONE]`.

use serde_json::{Value, json};

use crate::simulator::completion::{Finish, GeneratedCall, GeneratedReasoning};
use crate::simulator::event_stream::{EventStream, text_chunks};
use crate::simulator::response_data::{ResponseData, append};

use super::responses_body::{
    Stage, call_item, call_item_id, content_part, final_response, has_message, item_status, message_id,
    message_item, reasoning_id, reasoning_item, response_object, summary_part,
};

/// A stream that is being rendered.
struct StreamWriter<'a> {
    data: &'a ResponseData<'a>,
    events: EventStream,
    sequence_number: u64,
    output_index: u64,
    max_chunks: usize,
}

/// Renders a stream of at most `max_chunks` text chunks.
pub(in crate::simulator) fn render_stream(data: &ResponseData<'_>, max_chunks: usize) -> EventStream {
    let completion = data.completion;
    let mut writer = StreamWriter {
        data,
        events: EventStream::with_capacity(4_500 + completion.text.len() * 5),
        sequence_number: 0,
        output_index: 0,
        max_chunks,
    };
    writer.render();
    writer.events
}

impl StreamWriter<'_> {
    fn render(&mut self) {
        let data = self.data;
        let in_progress = json!({ "response": response_object(data, Stage::InProgress, Vec::new()) });
        self.push("response.created", in_progress.clone());
        self.push("response.in_progress", in_progress);
        if let Some(reasoning) = &data.completion.reasoning {
            self.reasoning(reasoning);
        }
        if has_message(data) {
            self.message();
        } else {
            self.events.begin_chunks();
        }
        for (index, call) in data.completion.calls.iter().enumerate() {
            self.call(call, index + 1 == data.completion.calls.len());
        }
        let is_cut = data.completion.finish == Finish::Length;
        let end = if is_cut { "response.incomplete" } else { "response.completed" };
        self.push(end, json!({ "response": final_response(data) }));
    }

    /// Adds an event with these fields.
    fn push(&mut self, kind: &str, fields: Value) {
        let mut event = json!({ "type": kind, "sequence_number": self.sequence_number });
        if let (Value::Object(event), Value::Object(fields)) = (&mut event, fields) {
            event.extend(fields);
        }
        self.events.push(|out| append!(out, "event: ", kind, "\ndata: ", event, "\n\n"));
        self.sequence_number += 1;
    }

    fn begin_item(&mut self, item: Value) {
        let fields = json!({ "output_index": self.output_index, "item": item });
        self.push("response.output_item.added", fields);
    }

    fn end_item(&mut self, item: Value) {
        let fields = json!({ "output_index": self.output_index, "item": item });
        self.push("response.output_item.done", fields);
        self.output_index += 1;
    }

    fn reasoning(&mut self, reasoning: &GeneratedReasoning) {
        let id = reasoning_id(self.data);
        self.begin_item(json!({ "id": id, "type": "reasoning", "summary": [] }));
        if !reasoning.text.is_empty() {
            let at = json!({ "item_id": id, "output_index": self.output_index, "summary_index": 0 });
            let part = |text: &str| with(&at, json!({ "part": summary_part(text) }));
            self.push("response.reasoning_summary_part.added", part(""));
            for chunk in text_chunks(&reasoning.text, self.max_chunks) {
                let delta = json!({ "delta": chunk, "obfuscation": "w3" });
                self.push("response.reasoning_summary_text.delta", with(&at, delta));
            }
            let done = json!({ "text": reasoning.text });
            self.push("response.reasoning_summary_text.done", with(&at, done));
            self.push("response.reasoning_summary_part.done", part(&reasoning.text));
        }
        self.end_item(reasoning_item(self.data, reasoning));
    }

    fn message(&mut self) {
        let data = self.data;
        let text = data.completion.text.as_str();
        let at =
            json!({ "item_id": message_id(data), "output_index": self.output_index, "content_index": 0 });
        self.begin_item(message_item(data, "in_progress", Vec::new()));
        self.push("response.content_part.added", with(&at, json!({ "part": content_part(data, "") })));
        self.events.begin_chunks();
        let is_refusal = data.completion.finish == Finish::Refusal;
        for chunk in text_chunks(text, self.max_chunks) {
            if is_refusal {
                self.push("response.refusal.delta", with(&at, json!({ "delta": chunk })));
            } else {
                let delta = json!({ "delta": chunk, "logprobs": [], "obfuscation": "w3" });
                self.push("response.output_text.delta", with(&at, delta));
            }
        }
        if data.completion.calls.is_empty() {
            self.events.end_chunks();
        }
        if is_refusal {
            self.push("response.refusal.done", with(&at, json!({ "refusal": text })));
        } else {
            self.push("response.output_text.done", with(&at, json!({ "text": text, "logprobs": [] })));
        }
        self.push("response.content_part.done", with(&at, json!({ "part": content_part(data, text) })));
        self.end_item(message_item(data, item_status(data), vec![content_part(data, text)]));
    }

    fn call(&mut self, call: &GeneratedCall, is_last: bool) {
        let at = json!({ "item_id": call_item_id(call), "output_index": self.output_index });
        self.begin_item(call_item(call, "in_progress", ""));
        for chunk in text_chunks(&call.arguments, self.max_chunks) {
            let delta = json!({ "delta": chunk, "obfuscation": "w3" });
            self.push("response.function_call_arguments.delta", with(&at, delta));
        }
        if is_last {
            self.events.end_chunks();
        }
        let done = json!({ "name": call.name, "arguments": call.arguments });
        self.push("response.function_call_arguments.done", with(&at, done));
        self.end_item(call_item(call, "completed", &call.arguments));
    }
}

/// Returns the fields of both objects.
fn with(first: &Value, second: Value) -> Value {
    let mut all = first.clone();
    if let (Value::Object(all), Value::Object(second)) = (&mut all, second) {
        all.extend(second);
    }
    all
}

/// Renders an error event, after this number of other events.
pub(in crate::simulator) fn render_error_event(events_before: usize) -> Vec<u8> {
    let event = json!({
        "type": "error",
        "sequence_number": events_before,
        "code": "server_error",
        "message": "The server had an error while processing your request. Sorry about that!",
        "param": null,
    });
    format!("event: error\ndata: {event}\n\n").into_bytes()
}
