//! What an object's file says of it, behind one trait.

/// What lists, JSON and `--explain` say about an object.
pub trait Described {
    /// The TYPE column, one of the subsystem's `TYPES`.
    fn type_word(&self) -> &'static str;

    /// The name that the subsystem's own tools know it by, piece by piece.
    fn name(&self, piece: &mut dyn FnMut(Piece<'_>));

    /// What it is, as in "r5: RDMA memory region, 4 MiB of /srv/pool.dat".
    fn headline(&self) -> &'static str;

    /// How a pin of it is released.
    fn release(&self) -> Release;

    /// The fields of the JSON object that is called like the subsystem, in their order.
    fn fields(&self, field: &mut dyn FnMut(&'static str, Field<'_>));

    /// Empties what only root may see: addresses of the kernel, and unless the pin was made by a process of the user who asks
    /// (`is_own`), addresses and descriptor numbers in the process that made it.
    fn redact(&mut self, is_own: bool);

    /// What `--explain` appends to the name; empty for nothing.
    fn details(&self) -> String {
        String::new()
    }

    /// Further lines of `--explain`: label and text.
    fn notes(&self) -> Vec<(&'static str, String)> {
        Vec::new()
    }
}

/// A piece of an object's name. Names are made of pieces because a hundred thousand of them are written into one JSON
/// document, where formatting each into a string first takes longer than all the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    /// Text of pinwatch's own, which needs no escapes.
    Word(&'static str),
    /// Text of others.
    Text(&'a str),
    /// A number; `None` is shown as `?`.
    Number(Option<u64>),
    /// A number in hexadecimal, with `0x`.
    Hex(u64),
}

/// A field of an object in JSON; `None` becomes null.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field<'a> {
    /// A number.
    Number(Option<u64>),
    /// Text.
    Text(Option<&'a str>),
    /// A yes or no.
    Flag(Option<bool>),
    /// An array of texts.
    Texts(&'a [String]),
}

/// How a pin is released.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Release {
    /// Once every holder has closed its descriptors and mappings.
    Close,
    /// The same, or each holder does this, as a clause: "deregister the memory region".
    CloseOr(String),
    /// Who holds it is not known. What to do instead, as a sentence.
    Unknown(String),
}
