//! The terminal: lines that are typed, and text that appears above the line being typed.
//!
//! Typing has a thread of its own, so that it is never held up; so has printing, since the terminal's
//! printer may wait for the typing thread. Without a terminal, lines are read from standard input and
//! text is written to standard output.

use std::{
    io::{self, Write},
    sync::{
        Arc, OnceLock,
        mpsc::{self, Receiver, Sender},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use rustyline::{
    Config, DefaultEditor, ExternalPrinter, GraphemeClusterMode, error::ReadlineError,
};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::output::sentence;

/// How long a prompt waits for the text before it to be printed.
const FLUSH_WAIT: Duration = Duration::from_millis(100);

/// An input from the keyboard.
#[derive(Debug)]
pub(super) enum Input {
    /// A line.
    Line(String),
    /// Ctrl-C.
    Interrupted,
    /// Ctrl-D, or the end of standard input.
    Ended,
    /// The terminal failed, and why.
    Failed(String),
}

/// A prompt that can be drawn with another text while a line is typed behind it.
struct Prompt {
    text: String,
    /// The other text, once there is one: as wide as the first, which the terminal has measured.
    redrawn: Redrawn,
}

type Redrawn = Arc<OnceLock<String>>;

impl rustyline::Prompt for Prompt {
    fn raw(&self) -> &str {
        self.redrawn.get().unwrap_or(&self.text)
    }
}

/// The prompt behind which a line is being typed.
#[derive(Debug)]
struct Prompting {
    width: usize,
    redrawn: Redrawn,
}

impl Prompting {
    fn redraw(&self, texts: &[&str]) {
        let fitting = texts.iter().find(|text| width(text) <= self.width);
        let wide = |text: &&str| " ".repeat(self.width.saturating_sub(width(text))) + text;
        // A prompt that was redrawn before stays so until the line is typed.
        fitting.map(wide).map(|text| self.redrawn.set(text));
    }
}

/// How many columns of the terminal a text takes.
fn width(text: &str) -> usize {
    GraphemeClusterMode::from_env().width(text).into()
}

/// A request to the printing thread.
enum Print {
    Text(String),
    /// Say when everything before this is printed.
    Flush(Sender<()>),
}

/// The terminal.
#[derive(Debug)]
pub(super) struct Screen {
    inputs: UnboundedReceiver<Input>,
    prompts: Sender<Prompt>,
    prints: Sender<Print>,
    printing: JoinHandle<()>,
    /// The prompt, while a line is being typed.
    prompting: Option<Prompting>,
}

impl Screen {
    /// Takes the terminal.
    ///
    /// # Errors
    ///
    /// Returns the terminal's error if it cannot be used.
    pub(super) fn open() -> Result<Self, ReadlineError> {
        // What is typed here is nobody else's business: no history is kept on the disk.
        let mut editor =
            DefaultEditor::with_config(Config::builder().auto_add_history(true).build())?;
        let printer = editor.create_external_printer().ok();
        let (typed, inputs) = unbounded_channel();
        let (prompts, asked) = mpsc::channel();
        let (prints, texts) = mpsc::channel();
        thread::spawn(move || read_lines(&mut editor, &asked, &typed));
        let printing = thread::spawn(move || match printer {
            Some(mut printer) => print_all(&texts, |text| printer.print(text).is_ok()),
            None => print_all(&texts, |text| write_out(&text).is_ok()),
        });
        Ok(Self { inputs, prompts, prints, printing, prompting: None })
    }

    /// Prints a text as lines of their own, above the line that is being typed.
    pub(super) fn say(&self, text: &str) {
        // Whoever read the output has seen enough if nobody takes it.
        let _ = self.prints.send(Print::Text(format!("{text}\n")));
    }

    /// Whether a line is being typed.
    pub(super) const fn is_prompting(&self) -> bool {
        self.prompting.is_some()
    }

    /// Asks for a line, unless one is asked for already.
    pub(super) fn prompt(&mut self, prompt: &str) {
        if !self.is_prompting() {
            self.flush();
            let redrawn = Redrawn::default();
            let prompting = Prompting { width: width(prompt), redrawn: Arc::clone(&redrawn) };
            let prompt = Prompt { text: prompt.to_owned(), redrawn };
            self.prompting = self.prompts.send(prompt).is_ok().then_some(prompting);
        }
    }

    /// Draws the prompt with the first of some texts that is not wider, once there is something to
    /// [`Screen::say`]. The line that is being typed stays.
    pub(super) fn redraw(&self, texts: &[&str]) {
        if let Some(prompting) = &self.prompting {
            prompting.redraw(texts);
        }
    }

    /// Returns the next input. Cancelling this loses nothing.
    pub(super) async fn input(&mut self) -> Input {
        let input = self.inputs.recv().await.unwrap_or(Input::Ended);
        self.prompting = None;
        input
    }

    /// Waits a moment for everything to be printed.
    pub(super) fn flush(&self) {
        let (done, printed) = mpsc::channel();
        if self.prints.send(Print::Flush(done)).is_ok() {
            let _ = printed.recv_timeout(FLUSH_WAIT);
        }
    }

    /// Waits until everything is printed, and gives the terminal back.
    pub(super) fn close(self) {
        self.flush();
        let Self { prompts, prints, printing, prompting, .. } = self;
        drop((prompts, prints));
        // While a line is being typed the printer may wait for its thread for ever.
        if prompting.is_none() {
            let _ = printing.join();
        }
    }
}

fn read_lines(
    editor: &mut DefaultEditor,
    asked: &Receiver<Prompt>,
    typed: &UnboundedSender<Input>,
) {
    for prompt in asked {
        let (input, is_last) = match editor.readline(&prompt) {
            Ok(line) => (Input::Line(line), false),
            Err(ReadlineError::Interrupted) => (Input::Interrupted, false),
            Err(ReadlineError::Eof) => (Input::Ended, true),
            Err(error) => (Input::Failed(sentence(&error)), true),
        };
        if typed.send(input).is_err() || is_last {
            return;
        }
    }
}

fn write_out(text: &str) -> io::Result<()> {
    io::stdout().lock().write_all(text.as_bytes())
}

fn print_all(texts: &Receiver<Print>, mut print: impl FnMut(String) -> bool) {
    for text in texts {
        match text {
            Print::Text(text) => {
                if !print(text) {
                    return;
                }
            }
            Print::Flush(done) => {
                let _ = io::stdout().flush();
                let _ = done.send(());
            }
        }
    }
}

impl std::fmt::Debug for Print {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Print")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prompt_is_redrawn_in_the_same_width_with_the_first_text_that_fits() {
        let redrawn = |text: &str, texts: &[&str]| {
            let prompt = Prompt { text: text.to_owned(), redrawn: Redrawn::default() };
            Prompting { width: width(text), redrawn: Arc::clone(&prompt.redrawn) }.redraw(texts);
            rustyline::Prompt::raw(&prompt).to_owned()
        };
        let none = ["(no group)> ", "(none)> ", "> "];
        assert_eq!(redrawn("friday evening> ", &none), "    (no group)> ");
        assert_eq!(redrawn("friday> ", &none), "(none)> ");
        assert_eq!(redrawn("a> ", &none), " > ");
        assert_eq!(redrawn("金曜日> ", &none), "(none)> ", "two columns for each sign");
        assert_eq!(redrawn("(no group)> ", &["friday> "]), "    friday> ");
        assert_eq!(redrawn("(no group)> ", &["friday evening> "]), "(no group)> ");
    }
}
