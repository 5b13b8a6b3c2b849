//! libvirt's XML documents, and what they say in terms of the model. Knows nothing of connections.
