"""Google Cloud Pub/Sub as a broker; docs/adr/020-pubsub-by-unary-pulls.md says why not kombu's transport."""
