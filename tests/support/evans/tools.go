//go:build tools

// Evans is asked for by this, so that go.mod and go.sum hold it, and all that it is made of, by their hashes.
package tools

import _ "github.com/ktr0731/evans"
