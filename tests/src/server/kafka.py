"""A cluster of Kafka's protocol by librdkafka (its mock cluster), and a consumer, by clients that are not ours.

kafka.py serve FILE          three brokers; writes HOST:PORT of each to FILE, with commas between; makes TOPIC when FILE.make is there
kafka.py read BROKERS        all messages: partition, header `event.id`, key, value
kafka.py follow BROKERS FILE keys of messages into FILE as they come: these brokers keep 5 MiB of a partition and no more
"""
import os
import sys
import time

import confluent_kafka as kafka

WHAT, PLACE = sys.argv[1:3]
TOPIC = "keytrail.events"


def serve():
    producer = kafka.Producer({"test.mock.num.brokers": 3, "bootstrap.servers": "none:1"})
    brokers = producer.list_topics(timeout=20).brokers.values()
    with open(PLACE + ".part", "w") as file:
        file.write(",".join(f"{broker.host}:{broker.port}" for broker in brokers))
    os.rename(PLACE + ".part", PLACE)
    while True:
        time.sleep(0.2)
        if os.path.exists(PLACE + ".make"):
            producer.list_topics(TOPIC, timeout=20)


def read():
    consumer = kafka.Consumer(
        {
            "bootstrap.servers": PLACE,
            "group.id": "reader",
            "check.crcs": True,
            "enable.partition.eof": True,
            "enable.auto.commit": False,
        }
    )
    partitions = consumer.list_topics(TOPIC, timeout=20).topics[TOPIC].partitions
    consumer.assign([kafka.TopicPartition(TOPIC, n, kafka.OFFSET_BEGINNING) for n in partitions])
    left = set(partitions)
    while left:
        message = consumer.poll(30)
        if message is None:
            sys.exit("nothing came")
        if message.error() is not None:
            if message.error().code() != kafka.KafkaError._PARTITION_EOF:
                sys.exit(str(message.error()))
            left.discard(message.partition())
            continue
        (name, header), = message.headers()
        assert name == "event.id" and message.timestamp()[0] == kafka.TIMESTAMP_CREATE_TIME
        assert abs(message.timestamp()[1] / 1000 - time.time()) < 3600
        print(message.partition(), header.decode(), message.key().decode(), message.value().decode())


def follow():
    consumer = kafka.Consumer(
        {
            "bootstrap.servers": PLACE,
            "group.id": "follower",
            "auto.offset.reset": "error",
            "enable.auto.commit": False,
        }
    )
    while not (partitions := consumer.list_topics(TOPIC, timeout=20).topics[TOPIC].partitions):
        time.sleep(0.1)
    consumer.assign([kafka.TopicPartition(TOPIC, n, kafka.OFFSET_BEGINNING) for n in partitions])
    with open(sys.argv[3], "wb", buffering=0) as file:
        while True:
            messages = consumer.consume(10000, timeout=0.1)
            bad = [message.error() for message in messages if message.error() is not None]
            file.write(b"".join(b"BAD " + str(error).encode() + b"\n" for error in bad))
            file.write(b"".join(message.key() + b"\n" for message in messages if message.error() is None))


{"serve": serve, "read": read, "follow": follow}[WHAT]()
