//! A player: the devices of one language.

use std::{
    io::{BufRead, BufReader, Write},
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{Receiver, channel},
    thread,
    time::Duration,
};

use serde_json::Value;

use super::{rust_player::RustPlayer, service::Service};

/// How long an answer is waited for: only a hang takes longer, on the busiest machine.
const PATIENCE: Duration = Duration::from_mins(2);

/// The result of a step, or the error with its code.
pub(crate) type Answer = Result<Value, Value>;

/// The devices of one language.
pub(crate) enum Player {
    Here(RustPlayer),
    Program { child: Child, steps: ChildStdin, answers: Receiver<String> },
}

impl Player {
    /// Starts a program with the server's URL and a folder for homes as its last arguments, or a player in this process.
    pub(crate) fn start(program: Option<&str>, service: &Service) -> Self {
        let Some(program) = program else {
            return Self::Here(RustPlayer::new(service.url(), service.homes()));
        };
        let mut words = program.split_whitespace();
        let mut child = Command::new(words.next().unwrap())
            .args(words)
            .arg(service.url())
            .arg(service.homes())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{program}: {error}"));
        let (steps, lines) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let (tell, answers) = channel();
        thread::spawn(move || {
            BufReader::new(lines).lines().try_for_each(|line| tell.send(line.unwrap()))
        });
        Self::Program { child, steps, answers }
    }

    pub(crate) fn play(&mut self, step: &Value) -> Answer {
        match self {
            Self::Here(player) => player.play(step),
            Self::Program { steps, answers, .. } => {
                writeln!(steps, "{step}").unwrap();
                let line = answers.recv_timeout(PATIENCE).expect("the program answers");
                let mut answer: Value = serde_json::from_str(&line).expect(&line);
                match answer.get_mut("error") {
                    Some(error) => Err(error.take()),
                    None => Ok(answer["ok"].take()),
                }
            }
        }
    }
}

impl Drop for Player {
    fn drop(&mut self) {
        if let Self::Program { child, .. } = self {
            // It may have ended by itself.
            let _ = child.kill();
            child.wait().unwrap();
        }
    }
}
