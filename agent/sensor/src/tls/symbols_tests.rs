use super::*;
use crate::tls::{
    elf::tests::{library, written},
    prologue,
};
use proptest::prelude::*;
use std::{fs::File, path::Path};

const NAMES: [&str; 3] = ["SSL_write", "SSL_write_ex", "gnutls_record_send"];

/// The functions of a file.
fn inspect(file: &File, names: &[&str]) -> Result<Symbols, ElfError> {
    Symbols::of(&Elf::open(file)?, names)
}

#[test]
fn a_function_is_found_by_the_tail_of_a_name() {
    let image = inspect(&written(&library("SSL_write", b"\x55\xc3")), &NAMES).unwrap();
    let expected = Function {
        name: 0,
        offset: 0x78,
        code: b"\x55\xc3".to_vec(),
        whole: true,
    };
    assert_eq!(image.functions, [expected]);
}

#[test]
fn other_names_are_other_functions() {
    for name in ["SSL_write_more", "SSL_writ", "xgnutls_record_sen"] {
        let image = inspect(&written(&library(name, b"\x55\xc3")), &NAMES).unwrap();
        assert_eq!(image.functions, [], "{name}");
    }
}

#[test]
fn lies_are_errors() {
    let good = library("SSL_write", b"\x55\xc3");
    let sections = u64::from_le_bytes(good[0x28..0x30].try_into().unwrap()) as usize;
    let broken = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut file = good.clone();
        change(&mut file);
        inspect(&written(&file), &NAMES).unwrap_err().to_string()
    };
    let put = |at: usize, value: u64| {
        move |file: &mut Vec<u8>| file[at..at + 8].copy_from_slice(&value.to_le_bytes())
    };
    // Section headers beyond the end; offsets and sizes that overflow; sizes beyond the file.
    assert!(broken(&put(0x28, u64::MAX - 8)).contains("contradict"));
    assert!(broken(&put(0x28, 1 << 40)).contains("contradict"));
    assert!(broken(&put(sections + 64 + 24, u64::MAX)).contains("contradict"));
    assert!(broken(&put(sections + 64 + 32, 1 << 20)).contains("contradict"));
    assert!(broken(&put(sections + 128 + 32, u64::MAX)).contains("larger"));
    // A link to no section.
    assert!(broken(&|file| file[sections + 64 + 40] = 9).contains("contradict"));
    // Another class, another machine, no ELF at all, hardly anything.
    assert!(broken(&|file| file[4] = 1).contains("32-bit"));
    assert!(broken(&|file| file[18] = 0xf3).contains("another machine"));
    assert!(broken(&|file| file[0] = 0).contains("not an ELF"));
    assert!(broken(&|file| file.truncate(40)).contains("contradict"));
}

#[test]
fn a_function_outside_of_the_code_is_none() {
    let mut file = library("SSL_write", b"\x55\xc3");
    // The segment is no longer executable.
    file[0x44] = 4;
    assert_eq!(inspect(&written(&file), &NAMES).unwrap().functions, []);
}

#[test]
fn rustls_is_known_by_either_mangling() {
    let legacy = b"\0_ZN66_$LT$rustls..conn..connection..Writer$u20$as$u20$std..io..Write$GT$5write17h0123456789abcdefE\0";
    let v0 = b"\0_RNvXs_NtNtCs1_6rustls4conn10connectionNtB4_6WriterNtNtCs2_3std2io5Write5write\0";
    assert!(rustls_writer(legacy) && rustls_writer(v0));
    assert!(!rustls_writer(
        b"\0_RNvXs_NtNtCs1_6rustls4conn10connectionNtB4_6Writer\x005write\0"
    ));
}

#[test]
fn installed_libraries_are_probed_where_it_is_cheap() {
    for (path, names) in [
        (
            "/usr/lib/x86_64-linux-gnu/libssl.so.3",
            &["SSL_write", "SSL_write_ex", "SSL_write_early_data"][..],
        ),
        (
            "/usr/lib/x86_64-linux-gnu/libgnutls.so.30",
            &["gnutls_record_send", "gnutls_record_send2"],
        ),
    ] {
        if !Path::new(path).exists() || !cfg!(target_arch = "x86_64") {
            eprintln!("not tried: there is no {path}");
            continue;
        }
        let image = inspect(&File::open(path).unwrap(), names).unwrap();
        assert_eq!(image.functions.len(), names.len(), "{path}");
        for function in &image.functions {
            let point = prologue::x86_64::probe_point(
                &function.code,
                prologue::Given {
                    whole: function.whole,
                    calls: true,
                },
            );
            assert!(
                point.emulated.is_some(),
                "{path}: {}: {point:?}",
                names[function.name]
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn changed_bytes_never_panic(changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6)) {
        let mut file = library("SSL_write", b"\x48\x83\xec\x08\xe8\x87\xfb\xff\xff\xc3");
        for (at, byte) in changes {
            let at = at.index(file.len());
            file[at] = byte;
        }
        if let Ok(image) = inspect(&written(&file), &NAMES) {
            for function in image.functions {
                prop_assert!(function.offset + function.code.len() as u64 <= file.len() as u64);
            }
        }
    }
}
