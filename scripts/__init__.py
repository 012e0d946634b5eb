"""Host tools: image build, board driver, bundle tool, provisioning, demonstration."""
