//! Pins that no subsystem claims: all that is known is the code that asked for them.

use serde::{Deserialize, Serialize};

use super::described::{Described, Field, Piece, Release};

/// See [`super::types_of`].
pub const TYPES: &[&str] = &["unclaimed"];

/// The code that asked for a pin.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Object {
    /// The module that the code is in; `None` for the kernel proper, or if nothing is known.
    pub module: Option<String>,
    /// The function.
    pub function: Option<String>,
    /// The kernel's stack then, innermost first, from that function on.
    pub stack: Vec<String>,
    /// The module is no longer loaded.
    pub unloaded: bool,
}

impl Described for Object {
    fn type_word(&self) -> &'static str {
        "unclaimed"
    }

    fn name(&self, piece: &mut dyn FnMut(Piece<'_>)) {
        piece(Piece::Word("("));
        match (&self.module, &self.function) {
            (Some(module), _) => piece(Piece::Text(module)),
            (None, Some(function)) => piece(Piece::Text(function)),
            (None, None) => piece(Piece::Word("?")),
        }
        piece(Piece::Word(if self.unloaded { ") unloaded" } else { ")" }));
    }

    fn headline(&self) -> &'static str {
        "pages that no subsystem known to pinwatch claims"
    }

    fn release(&self) -> Release {
        Release::Unknown(match &self.module {
            Some(module) => format!(
                "Only the module {module} knows what keeps it: end what uses it, and see its documentation."
            ),
            None => "Only the code that made it knows what keeps it: end the process that asked for it."
                .to_owned(),
        })
    }

    /// A bare address is shown where the kernel has no symbol for one. An offset into a function or a module does not say where
    /// that is.
    fn redact(&mut self, _is_own: bool) {
        for frame in self.stack.iter_mut().filter(|frame| frame.starts_with("0x") && !frame.ends_with(']')) {
            "?".clone_into(frame);
        }
    }

    fn fields(&self, field: &mut dyn FnMut(&'static str, Field<'_>)) {
        field("module", Field::Text(self.module.as_deref()));
        field("module_loaded", Field::Flag(self.module.as_ref().map(|_| !self.unloaded)));
        field("function", Field::Text(self.function.as_deref()));
        field("stack", Field::Texts(&self.stack));
    }

    fn notes(&self) -> Vec<(&'static str, String)> {
        let made = self.stack.iter().map(|frame| ("made in", frame.clone()));
        let released = "seen by sampling: its first, middle and last page are checked every 500 ms, 1,000 pins at a time";
        made.chain([("released", released.to_owned())]).collect()
    }
}
