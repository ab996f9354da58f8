//! `pinwatch check`: what would be done here, done for real for a moment, and taken back.
pub struct Report(String);
impl Report {
    pub fn json(&self) -> String { self.0.clone() }
    pub fn text(&self) -> String { self.0.clone() }
    pub fn exit_code(&self) -> u8 { 0 }
}
pub fn check(_: crate::kernel::plan::AttachMode) -> Report { Report(String::new()) }
