// Makes certificates as the scaler before 0.7 does (cert-controller v0.16: the same templates,
// key type and PEM types), so that taking them over can be tested.
//
//	cd tests/data/pki && go run make.go
//
// The leaves are good until 2049 and the CAs until 2050, so that real handshakes can use them.
package main

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"log"
	"math/big"
	"os"
	"time"
)

const (
	caName  = "keda-kaito-scaler-ca"
	service = "keda-kaito-scaler-svc.keda"
)

func main() {
	begin := time.Date(2024, 7, 1, 0, 0, 0, 0, time.UTC)
	write("server", "server", begin, x509.ExtKeyUsageServerAuth,
		[]string{"", service, service + ".svc", service + ".svc.cluster", service + ".svc.cluster.local"})
	write("client", "tls", begin, x509.ExtKeyUsageClientAuth, []string{""})
}

func write(directory, leafName string, begin time.Time, usage x509.ExtKeyUsage, names []string) {
	caKey := key()
	ca := &x509.Certificate{
		SerialNumber:          big.NewInt(0),
		Subject:               pkix.Name{CommonName: caName, Organization: []string{"kaito-project"}},
		DNSNames:              []string{caName},
		NotBefore:             begin,
		NotAfter:              time.Date(2050, 1, 1, 0, 0, 0, 0, time.UTC),
		KeyUsage:              x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment | x509.KeyUsageCertSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
	}
	caDER := sign(ca, ca, caKey, caKey)
	signedCA, err := x509.ParseCertificate(caDER)
	check(err)
	leafKey := key()
	leaf := &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		Subject:               pkix.Name{},
		DNSNames:              names,
		NotBefore:             begin,
		NotAfter:              time.Date(2049, 1, 1, 0, 0, 0, 0, time.UTC),
		KeyUsage:              x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment,
		ExtKeyUsage:           []x509.ExtKeyUsage{usage},
		BasicConstraintsValid: true,
	}
	check(os.MkdirAll(directory, 0o755))
	prefix := directory + "/"
	encode(prefix+"ca.crt", "CERTIFICATE", caDER)
	encode(prefix+"ca.key", "RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(caKey))
	encode(prefix+leafName+".crt", "CERTIFICATE", sign(leaf, signedCA, leafKey, caKey))
	encode(prefix+leafName+".key", "RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(leafKey))
}

func key() *rsa.PrivateKey {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	check(err)
	return key
}

func sign(template, parent *x509.Certificate, subject, signer *rsa.PrivateKey) []byte {
	der, err := x509.CreateCertificate(rand.Reader, template, parent, subject.Public(), signer)
	check(err)
	return der
}

func encode(path, kind string, der []byte) {
	check(os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o644))
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
