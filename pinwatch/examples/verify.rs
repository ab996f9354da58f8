//! Loads one program and tells how much work it was for the verifier, and where: `verify PROGRAM FUNCTION`. For developers,
//! in a VM.
use std::collections::HashMap;

use aya::programs::{FEntry, FExit, KProbe, Program};
use aya::{Btf, EbpfLoader, VerifierLogLevel};
use pinwatch::kernel::plan::{AttachMode, Plan};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    let (name, function) = (arguments[1].as_str(), arguments[2].as_str());
    let facts = pinwatch::daemon::probe(pinwatch::kernel::facts::Depth::Quick);
    let plan = Plan::decide(&facts, AttachMode::Auto);
    let mut ebpf = EbpfLoader::new()
        .override_global("OFFSETS", &plan.offsets, true)
        .override_global("AYA_LOG_LEVEL", &Level(std::env::var("LEVEL").map_or(0, |_| 4)), true)
        .verifier_log_level(VerifierLogLevel::VERBOSE | VerifierLogLevel::STATS)
        .load(pinwatch::kernel::bpf::OBJECT)?;
    let btf = Btf::from_sys_fs()?;
    let program = ebpf.program_mut(name).ok_or("no such program")?;
    let started = std::time::Instant::now();
    let result = match program {
        Program::FExit(program) => <&mut FExit>::from(program).load(function, &btf),
        Program::FEntry(program) => <&mut FEntry>::from(program).load(function, &btf),
        Program::KProbe(program) => <&mut KProbe>::from(program).load(),
        _ => return Err("not one of ours".into()),
    };
    println!("{name}: {:?} in {:?}", result.is_ok(), started.elapsed());
    if let Err(aya::programs::ProgramError::LoadError { io_error, verifier_log }) = result {
        let log = verifier_log.to_string();
        println!("{io_error}");
        let mut visits: HashMap<&str, usize> = HashMap::new();
        for line in log.lines() {
            if let Some((number, _)) = line.split_once(':')
                && number.parse::<u32>().is_ok()
            {
                *visits.entry(number).or_default() += 1;
            }
        }
        let mut visits: Vec<_> = visits.into_iter().collect();
        visits.sort_by_key(|(_, n)| std::cmp::Reverse(*n));
        println!("{:?}", &visits[..visits.len().min(40)]);
        let lines: Vec<&str> = log.lines().collect();
        for line in &lines[lines.len().saturating_sub(400)..] {
            println!("{line}");
        }
    } else if let Ok(info) = ebpf.program(name).ok_or("gone")?.info() {
        println!("verified instructions {:?}", info.verified_instruction_count());
    }
    Ok(())
}

#[repr(transparent)]
#[derive(Clone, Copy)]
struct Level(u8);
// SAFETY: a byte.
unsafe impl aya::Pod for Level {}
