//! A pipe whose server cannot be had: every request gets an error that says why, so that the client is not left waiting.
//!
//! Called by the pipe's door and by the relay that could not reach the gateway. Nothing is decided, recorded or forwarded.

use bytes::BytesMut;
use cairn_mcp::{Kind, Limits, Message};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::Refusal;

/// Answers every request on the pipe with the refusal, until the client closes it or sends what is too long.
pub async fn refuse_pipe<R, W>(mut read: R, mut write: W, refusal: &Refusal)
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let limits = Limits::default();
    let mut buffer = BytesMut::new();
    loop {
        while let Some(end) = buffer.iter().position(|byte| *byte == b'\n') {
            let line = buffer.split_to(end + 1).freeze();
            let Ok(message) = Message::parse(line.slice(..end), &limits) else { continue };
            if message.kind() != Kind::Request {
                continue;
            }
            let mut answer = refusal.response(message.id()).bytes().to_vec();
            answer.push(b'\n');
            if write.write_all(&answer).await.is_err() || write.flush().await.is_err() {
                return;
            }
        }
        if buffer.len() > limits.message_bytes_max || !matches!(read.read_buf(&mut buffer).await, Ok(1..)) {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn each_request_gets_an_error_and_nothing_else_does() {
        let input = concat!(
            r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{}}"#,
            "\n",
            r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#,
            "\nnot JSON\n",
            r#"{"jsonrpc":"2.0","id":"b","method":"tools/list"}"#,
            "\n"
        );
        let mut output = Vec::new();
        refuse_pipe(input.as_bytes(), &mut output, &Refusal::Unavailable { reason: "no such program".to_owned() })
            .await;
        let text = String::from_utf8(output).expect("JSON is UTF-8");
        let answers: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).expect("each line is a message")).collect();
        assert_eq!(answers.len(), 2, "{text}");
        assert_eq!((answers[0]["id"].as_i64(), answers[1]["id"].as_str()), (Some(1), Some("b")));
        assert!(answers.iter().all(|answer| answer["error"]["message"].as_str().unwrap().contains("no such program")));
    }
}
