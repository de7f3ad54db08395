//! This side of the process that takes attachments apart.

use std::process::Stdio;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use mail::mime::{Part, TransferDecoder};
use storage::BodyError;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;
use tokio::sync::Semaphore;

use super::Format;
use crate::config::AttachmentConfig;

/// Takes attachments apart, each in a process that is started for it.
#[derive(Debug)]
pub struct Extractor {
    config: AttachmentConfig,
    turns: Semaphore,
}

/// Why there is no text of an attachment.
#[derive(Debug, thiserror::Error)]
pub enum ExtractError {
    /// Its bytes could not be read.
    #[error(transparent)]
    Body(#[from] BodyError),
    /// It cannot be taken apart, or not within the limits.
    #[error("no text: {0}")]
    NoText(String),
    /// It took too long, and was ended.
    #[error("no text within the time")]
    Late,
}

impl Extractor {
    /// With these limits.
    pub fn new(config: AttachmentConfig) -> Self {
        let turns = Semaphore::new(config.processes_max.max(1));
        Self { config, turns }
    }

    /// Whether a part is to be taken apart, and as what.
    pub fn format(&self, part: &Part, file_name: Option<&str>) -> Option<Format> {
        let is_small = part.body_len() <= self.config.attachment_bytes_max.saturating_mul(4) / 3 + 4096;
        if self.config.enabled && self.config.program.is_some() && is_small {
            Format::of(part, file_name)
        } else {
            None
        }
    }

    /// Attachments of one message that are looked at.
    pub fn per_message_max(&self) -> usize {
        self.config.per_message_max
    }

    /// The text of an attachment whose octets, as they stand in the message, are `pieces`.
    pub async fn text(
        &self,
        format: Format,
        part: &Part,
        mut pieces: impl Stream<Item = Result<Bytes, BodyError>> + Unpin,
    ) -> Result<String, ExtractError> {
        let no_text = |error: &dyn std::fmt::Display| ExtractError::NoText(error.to_string());
        let Some((program, arguments)) = &self.config.program else {
            return Err(ExtractError::NoText("there is no program for it".to_owned()));
        };
        let _turn = self.turns.acquire().await.map_err(|error| no_text(&error))?;
        let mut child = Command::new(program)
            .args(arguments)
            .arg(format.name())
            .args([self.config.memory_bytes_max, self.config.seconds_max].map(|number| number.to_string()))
            .arg(self.config.text_bytes_max.to_string())
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| no_text(&error))?;
        let (Some(mut input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(ExtractError::NoText("it has no pipes".to_owned()));
        };
        let feed = async {
            let (mut decoder, mut buffer) = (TransferDecoder::new(part), Vec::new());
            while let Some(piece) = pieces.next().await {
                let piece = piece?;
                // Whoever has seen enough closes its end.
                if input.write_all(decoder.push(&piece, &mut buffer)).await.is_err() {
                    break;
                }
            }
            drop(input);
            Ok::<(), BodyError>(())
        };
        let mut text = Vec::new();
        let mut output = output.take(self.config.text_bytes_max as u64);
        let work = async {
            let (fed, read) = tokio::join!(feed, output.read_to_end(&mut text));
            fed?;
            read.map_err(|error| no_text(&error))?;
            let status = child.wait().await.map_err(|error| no_text(&error))?;
            if status.success() { Ok(()) } else { Err(no_text(&status)) }
        };
        match tokio::time::timeout(Duration::from_secs(self.config.seconds_max), work).await {
            Ok(done) => done?,
            Err(_) => return Err(ExtractError::Late),
        }
        Ok(String::from_utf8_lossy(&text).into_owned())
    }
}
