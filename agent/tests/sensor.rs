use keytrail::sensor::*;
#[test]
fn smoke() {
    let mut sensor = match Sensor::open(&SensorOptions::default()) {
        Ok(s) => s,
        Err(e) => panic!("{e}"),
    };
    for s in &sensor.status().signals {
        println!("{s:#?}");
    }
    println!("{:?}", sensor.status().offsets);
    println!("{:?}", sensor.losses());
    let t = std::time::Instant::now();
    println!("scan {} {:?}", sensor.scan_libraries(), t.elapsed());
    for l in &sensor.status().libraries {
        println!("{l:?}");
    }
    let n = sensor.drain(&mut |r| println!("{} {}", r.hook, r.bytes.len()));
    println!("{n}");
}
