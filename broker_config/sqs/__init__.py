"""AWS SQS as a broker; docs/adr/019-sqs-by-a-transport-of-our-own.md says why not kombu's transport."""
