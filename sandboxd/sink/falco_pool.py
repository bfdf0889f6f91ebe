"""A descriptor pool for the messages of Falco's gRPC outputs. They have the names that Falco's own client library
registers with the process, which would take them once only. Used by the generated modules in `falco_api`."""

from google.protobuf import timestamp_pb2
from google.protobuf.descriptor_pool import DescriptorPool

POOL = DescriptorPool()
POOL.AddSerializedFile(timestamp_pb2.DESCRIPTOR.serialized_pb)
