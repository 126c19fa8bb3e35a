"""Rows and Messages to and from Kafka: how they are written as messages, and the clients that send and read them.

Input: batches, in the thread of an output. Output: messages of a topic; and the same the other way round. librdkafka,
by confluent-kafka, speaks with the brokers; it is imported when it is needed.
"""

__all__ = ["settings"]
