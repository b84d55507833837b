use aya::{EbpfLoader, programs::*};
fn main() {
    let args: Vec<String> = std::env::args().collect();
    let kernel =
        keytrail::sensor::btf::Btf::load(std::path::Path::new("/sys/kernel/btf/vmlinux")).unwrap();
    let mut fields = keytrail::sensor::btf::resolve(&kernel);
    use keytrail_abi::globals::field as f;
    fields.set(f::WAKE_BYTES, 1 << 20);
    fields.set(f::HAS_COOKIE, 1);
    fields.set(f::HAS_TASK_REGS, 1);
    for (i, v) in fields.values.iter().enumerate() {
        if *v == u32::MAX {
            eprintln!("missing {}", f::NAMES[i]);
        }
    }
    let data = std::fs::read("target/bpf/keytrail.o").unwrap();
    let level = aya::VerifierLogLevel::DEBUG | aya::VerifierLogLevel::STATS;
    let mut e = EbpfLoader::new()
        .override_global("FIELDS", &fields.values, true)
        .verifier_log_level(level)
        .load(&data)
        .unwrap();
    for name in &args[1..] {
        let t = std::time::Instant::now();
        let r = match e.program_mut(name).unwrap() {
            Program::RawTracePoint(p) => p.load(),
            Program::UProbe(p) => p.load(),
            Program::CgroupSockAddr(p) => p.load(),
            _ => panic!(),
        };
        match r {
            Ok(()) => {
                let p = e.program(name).unwrap();
                let i = p.info().unwrap();
                eprintln!(
                    "{name}: ok {:?} insns {:?} jited {} {:?}",
                    i.verified_instruction_count(),
                    i.size_translated(),
                    i.size_jitted(),
                    t.elapsed()
                )
            }
            Err(ProgramError::LoadError {
                io_error,
                verifier_log,
            }) => {
                eprintln!("{name}: {io_error} {:?}", t.elapsed());
                println!("{verifier_log}");
            }
            Err(x) => eprintln!("{x}"),
        }
    }
}
