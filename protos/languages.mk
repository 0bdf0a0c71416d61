# `make proto LANG=go|typescript|java`: the contract for clients in other languages. Nothing of this is committed: each
# is made by the one command, by the generators that its users have at hand, and a test makes them all.
# The generators come from their own registries and are pinned here; Node 20 and Java 17 can run them.

PROTOC_GEN_GO := v1.36.12
PROTOC_GEN_GO_GRPC := v1.6.2
PROTOC_GEN_ES := 2.13.0
PROTOC_JAVA := 4.36.2
PROTOC_GEN_GRPC_JAVA := 1.80.0

TOOLS := $(CURDIR)/.cache/generators
OUTPUT := $(abspath $(GENERATED))/$(LANGUAGE)
# As Maven calls this machine.
MACHINE := $(subst Darwin,osx,$(subst Linux,linux,$(shell uname -s)))-$(subst arm64,aarch_64,$(subst aarch64,aarch_64,$(shell uname -m)))

define buf_generate
	rm -rf $(OUTPUT) && mkdir -p $(OUTPUT)
	cd .cache/buf && PATH="$(TOOLS)/$(LANGUAGE)/bin:$(TOOLS)/$(LANGUAGE)/node_modules/.bin:$$PATH" \
	  ../../$(BIN)/buf generate --template ../../protos/buf.gen.$(LANGUAGE).yaml --path protos/taskq -o $(OUTPUT)
endef

proto-go: buf-workspace $(TOOLS)/go/$(PROTOC_GEN_GO)-$(PROTOC_GEN_GO_GRPC)
	$(buf_generate)
	printf 'module example.com/taskq\n\ngo 1.24\n' >$(OUTPUT)/go.mod

proto-typescript: buf-workspace $(TOOLS)/typescript/$(PROTOC_GEN_ES)
	$(buf_generate)

proto-java: buf-workspace $(TOOLS)/java/$(PROTOC_JAVA)-$(PROTOC_GEN_GRPC_JAVA)
	$(buf_generate)

$(TOOLS)/go/%:
	GOBIN=$(TOOLS)/go/bin go install google.golang.org/protobuf/cmd/protoc-gen-go@$(PROTOC_GEN_GO)
	GOBIN=$(TOOLS)/go/bin go install google.golang.org/grpc/cmd/protoc-gen-go-grpc@$(PROTOC_GEN_GO_GRPC)
	touch $@

$(TOOLS)/typescript/%:
	npm install --loglevel=error --no-save --prefix $(TOOLS)/typescript @bufbuild/protoc-gen-es@$(PROTOC_GEN_ES)
	touch $@

$(TOOLS)/java/%:
	mvn -B -q dependency:copy -Dartifact=com.google.protobuf:protoc:$(PROTOC_JAVA):exe:$(MACHINE) -DoutputDirectory=$(TOOLS)/java/bin
	mvn -B -q dependency:copy -Dartifact=io.grpc:protoc-gen-grpc-java:$(PROTOC_GEN_GRPC_JAVA):exe:$(MACHINE) -DoutputDirectory=$(TOOLS)/java/bin
	cd $(TOOLS)/java/bin && chmod +x *.exe && ln -sf protoc-$(PROTOC_JAVA)-$(MACHINE).exe protoc && \
	  ln -sf protoc-gen-grpc-java-$(PROTOC_GEN_GRPC_JAVA)-$(MACHINE).exe protoc-gen-grpc-java
	touch $@
